"""A language model small enough to build in a second: two layers, random weights, one token per byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.database.engine import Database
from feedback.datasets.freeze import freeze
from feedback.store.models.policies import promote_policy, save_policy
from feedback.store.models.runs import save_run
from feedback.tables import PolicyRow, RunRow
from feedback.types import DatasetFilters, Message, Policy, PreferencePair, Role, Run
from tests.factories import judge_by, make_matchup, make_prompt
from tests.feedback.conftest import postgresql, postgresql_server, postgresql_url  # noqa: F401  (fixtures)
from training.data.encoding import as_dicts
from training.home import Home
from training.models.chat import encode_exchange
from training.reporting.reporter import LocalProgress, RunContext
from training.settings.parsing import parse_settings

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WINDOW = 256


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random Llama with a byte tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*specials, *letters])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=specials[2:],
        chat_template=TEMPLATE,
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        initializer_range=0.2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = LlamaForCausalLM(config)
    directory = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def token_exchange(tokenizer: Any, messages: Sequence[Message], reply: str) -> tuple[list[int], list[int]]:
    """The ids of a prompt and of the finished reply to it."""
    exchange = encode_exchange(tokenizer, as_dicts(messages), reply)
    return exchange.prompt, exchange.reply


def make_pair(number: int, chosen: str = "yes yes", rejected: str = "no", split: str = "train") -> PreferencePair:
    """A preference pair to the number-th prompt."""
    return PreferencePair(
        prompt_id=f"prompt-{number}",
        matchup_id=f"matchup-{number}",
        messages=(Message(role=Role.user, content=f"Say {number}."),),
        chosen=chosen,
        rejected=rejected,
        chosen_generation=f"chosen-{number}",
        rejected_generation=f"rejected-{number}",
        judgment_ids=(f"judgment-{number}",),
        split=split,
    )


@pytest.fixture
def pairs() -> list[PreferencePair]:
    """Eight pairs of one simple taste: the letter a over the letter z."""
    return [make_pair(i, "a" * (3 + i % 4), "z" * (3 + i % 3)) for i in range(8)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home."""
    return Home(tmp_path / "home").create()


@pytest.fixture
def tiny_policy(db: Database, tiny_base: Path) -> PolicyRow:
    """The tiny base as a policy, promoted."""
    save_policy(db, Policy(name="tiny", base=str(tiny_base)))
    return promote_policy(db, "tiny")


@pytest.fixture
def make_context(db: Database, home: Home, tiny_policy: PolicyRow) -> Callable[..., RunContext]:
    """Builds what a method is given, as the process of a run would: ``make_context(method, config, attempt=1)``."""

    def make(method: str, config: dict[str, Any], *, attempt: int = 1, run: RunRow | None = None) -> RunContext:
        row = run or save_run(db, Run(method=method, config=config))
        row.attempt = attempt
        return RunContext(run=row, settings=parse_settings(method, config), db=db, home=home, progress=LocalProgress())

    return make


@pytest.fixture
def dataset(db: Database, tiny_policy: PolicyRow) -> str:
    """The name of a frozen dataset of one simple taste: replies with more words won."""
    for number in range(14):
        texts = [f"no {number}", f"yes yes yes {number}"]
        make_matchup(db, policy=tiny_policy, prompt=make_prompt(db, f"Say {number}."), texts=texts)
    judge_by(db, lambda left, right: len(left.split()) - len(right.split()))
    freeze(db, "taste", DatasetFilters(test_share=0.3))
    return "taste"
