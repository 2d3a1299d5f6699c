"""The reasoning of a model is kept apart from its reply, from the draw to the export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feedback import formats
from feedback.database.engine import open_database
from feedback.datasets.freeze import freeze
from feedback.store.content.generations import list_generations
from feedback.store.datasets.datasets import list_pairs
from feedback.store.models.policies import save_policy
from feedback.types import Policy, SamplingSettings
from tests.factories import judge_by, longer, make_prompt
from tests.training.methods.test_ppo import make_learner, settings_of
from tests.training.served import Served, reply_to, serving
from tests.training.tiny_models import TEMPLATE, byte_tokenizer, model_at
from training.generation.decoding import Decoded
from training.generation.endpoint import KEY_VARIABLE, Endpoint
from training.generation.replies import ReplyReader
from training.generation.sampling import sample
from training.methods import METHODS
from training.methods.rloo import _reward_function
from training.models.loading import LoadedPolicy, load_base
from training.ppo.rollouts import Rollout, generations_of, penalties

OPENS = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}")
MESSAGES = [{"role": "user", "content": "Why?"}]


def thinking_tokenizer(template: str = TEMPLATE, *, special: bool = False) -> Any:
    """A byte tokenizer with tokens for the begin and the end of a thought, special or not."""
    tokenizer = byte_tokenizer(template)
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    return tokenizer


def drawn(tokenizer: Any, text: str, *, ended: bool = True) -> Decoded:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Decoded((*ids, tokenizer.eos_token_id) if ended else tuple(ids), ended)


@pytest.mark.parametrize("special", [False, True])
def test_what_a_thinking_model_says_is_taken_apart(special: bool) -> None:
    tokenizer = thinking_tokenizer(special=special)
    reader = ReplyReader(tokenizer)
    said = reader.read(drawn(tokenizer, "<think>\nLet me see.\n</think>\n\nBecause."))
    assert (said.text, said.reasoning, said.unfinished) == ("Because.", "Let me see.", False)
    assert said.tokens == len("\n\nBecause."), "the answer alone is counted"
    cut = reader.read(drawn(tokenizer, "<think>Let me", ended=False))
    assert (cut.text, cut.reasoning, cut.tokens, cut.unfinished) == ("", "Let me", 0, True)
    plain = reader.read(drawn(tokenizer, "Write <think> and </think>."))
    assert (plain.text, plain.reasoning) == ("Write <think> and </think>.", "")
    empty = reader.read(drawn(tokenizer, "<think>\n\n</think>\n\nYes."))
    assert (empty.text, empty.reasoning, empty.tokens) == ("Yes.", "", len("\n\nYes."))


def test_a_template_may_open_the_thought() -> None:
    tokenizer = thinking_tokenizer(OPENS)
    reader = ReplyReader(tokenizer)
    said = reader.read(drawn(tokenizer, "Let me see.</think>Because."))
    assert (said.text, said.reasoning, said.tokens) == ("Because.", "Let me see.", len("Because."))
    at_once = reader.read(drawn(tokenizer, "</think>Because."))
    assert (at_once.text, at_once.reasoning, at_once.tokens) == ("Because.", "", len("Because."))
    assert reader.read(drawn(tokenizer, "I never come to an end.")).unfinished
    by_text = byte_tokenizer(OPENS + "{# </think> #}")  # no tokens of its own, but a template that knows them
    assert ReplyReader(by_text).read(drawn(by_text, "Hm.</think>Yes.")).text == "Yes."
    spelled = byte_tokenizer(TEMPLATE + "{# </think> #}")
    said = ReplyReader(spelled).read(drawn(spelled, "<think>Hm.</think>Yes."))
    assert (said.text, said.reasoning, said.tokens) == ("Yes.", "Hm.", len("Yes."))


def test_of_an_ordinary_model_the_same_spelling_is_text() -> None:
    tokenizer = byte_tokenizer()
    for text in ("<think>a</think>b", "<think>never closed", "a</think>b"):
        said = ReplyReader(tokenizer).read(drawn(tokenizer, text))
        assert (said.text, said.reasoning, said.unfinished, said.tokens) == (text, "", False, len(text))


def test_stop_strings_end_the_answer_and_not_the_reasoning() -> None:
    tokenizer = thinking_tokenizer()
    reader = ReplyReader(tokenizer, ["\n\n"])
    ids = tokenizer("<think>a\n\nb</think>Yes.\n\nNo", add_special_tokens=False)["input_ids"]
    found = [reader.found_stop(ids[:size]) for size in range(1, len(ids) + 1)]
    end = found.index(True) + 1
    assert tokenizer.decode(ids[:end]).endswith("Yes.\n\n")
    said = reader.read(Decoded(tuple(ids[:end]), True, stopped=True))
    assert (said.text, said.reasoning, said.tokens) == ("Yes.", "a\n\nb", len("Yes."))


def test_the_empty_line_behind_a_thought_is_no_stop_string() -> None:
    tokenizer = thinking_tokenizer()
    reader = ReplyReader(tokenizer, ["\n\n"])
    ids = tokenizer("<think>\n\n</think>\n\nYes.\n\nNo", add_special_tokens=False)["input_ids"]
    end = [reader.found_stop(ids[:size]) for size in range(1, len(ids) + 1)].index(True) + 1
    said = reader.read(Decoded(tuple(ids[:end]), True, stopped=True))
    assert (said.text, said.tokens) == ("Yes.", len("\n\nYes."))


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose template opens a thought; it closes some of them."""
    directory = tmp_path_factory.mktemp("thinker")
    return model_at(directory, tokenizer=thinking_tokenizer(OPENS), vocab_size=263, max_position_embeddings=512)


def test_a_run_keeps_the_reasoning_apart_and_leaves_out_what_has_no_answer(
    make_context: Any, thinker: Path, tmp_path: Path
) -> None:
    context = make_context("generate", {"policy": "thinker", "max_new_tokens": 160, "seed": 1, "per_prompt": 6})
    db = context.db
    save_policy(db, Policy(name="thinker", base=str(thinker)))
    for number in range(10):
        make_prompt(db, f"Why {number}?")
    result = METHODS["generate"].run(context)
    rows = list_generations(db, run_id=context.run.id)
    assert result["unfinished"] > 0 and len(rows) == result["generations"] <= 60 - result["unfinished"]
    assert any(row.reasoning for row in rows)
    assert not any("</think>" in (row.reasoning or "") for row in rows)
    assert any("raise max_new_tokens (now 160)" in line for line in context.progress.lines)
    assert result["matchups"] >= 4

    judge_by(db, longer, count=result["matchups"])
    freeze(db, "d")
    reasoning = {row.text: row.reasoning for row in rows}
    pairs = list_pairs(db, "d")
    assert pairs and all({pair.chosen, pair.rejected} <= set(reasoning) for pair in pairs)
    thought = next(reasoning[pair.chosen] for pair in pairs if reasoning[pair.chosen])
    for name in formats.FORMATS:
        export, chosen = formats.open_export(db, "d", name, None)
        text = "".join(chosen.lines(chosen.rows(export)))
        assert (json.dumps(thought)[1:-1] in text or json.dumps(thought, ensure_ascii=False)[1:-1] in text) == (
            name == "raw"
        ), name
    export, chosen = formats.open_export(db, "d", "raw", None)
    (tmp_path / "d.raw").write_text("".join(chosen.lines(chosen.rows(export))))
    other = open_database(tmp_path / "other.db")
    formats.import_file(other, tmp_path / "d.raw", "raw")
    assert thought in [row.reasoning for row in list_generations(other)]
    other.dispose()


def test_a_reply_without_an_answer_is_not_drawn_again(thinker: Path) -> None:
    policy = LoadedPolicy(*load_base(str(thinker), "cpu"), str(thinker))
    told: list[int] = []
    replies = sample(
        policy, [MESSAGES], 3, SamplingSettings(max_new_tokens=4), 1, on_progress=lambda done, _: told.append(done)
    )[0]
    assert all(reply.unfinished and not reply.text and reply.finish_reason == "length" for reply in replies)
    assert told == [3]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving("lab/thinker") as server:
        yield server


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_an_endpoint_that_gives_the_reasoning_apart(served: Served, name: str) -> None:
    def behave(body: dict[str, Any], before: int) -> Any:
        status, answer, headers = reply_to(body, "Because.")
        answer["choices"][0]["message"][name] = "Let me see."  # type: ignore[index]
        answer["usage"] = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}  # type: ignore[index]
        return status, answer, headers

    served.behave = behave
    (reply,) = sample(Endpoint(served.base), [MESSAGES], 1, SamplingSettings(max_new_tokens=9))[0]
    assert (reply.text, reply.reasoning, reply.tokens, reply.unfinished) == ("Because.", "Let me see.", 2, False)


def test_an_endpoint_that_gives_it_between_tags_or_no_answer(served: Served) -> None:
    served.behave = lambda body, before: reply_to(body, "<think>Let me see.</think>Because.")
    (reply,) = sample(Endpoint(served.base), [MESSAGES], 1)[0]
    assert (reply.text, reply.reasoning, reply.tokens) == ("Because.", "Let me see.", 0)
    served.behave = lambda body, before: reply_to(body, "Let me see.\n</think>\n\nBecause.")
    (reply,) = sample(Endpoint(served.base), [MESSAGES], 1)[0]
    assert (reply.text, reply.reasoning, reply.unfinished) == ("Because.", "Let me see.", False), "opened by its prompt"
    served.behave = lambda body, before: reply_to(body, "<think>Let me", "length")
    (reply,) = sample(Endpoint(served.base), [MESSAGES], 1)[0]
    assert (reply.text, reply.unfinished, reply.finish_reason) == ("", True, "length")
    served.behave = lambda body, before: reply_to(body, "Write <think> here.")
    (reply,) = sample(Endpoint(served.base), [MESSAGES], 1)[0]
    assert (reply.text, reply.reasoning) == ("Write <think> here.", "")


def test_ppo_scores_the_answer_and_keeps_the_reasoning_apart(thinker: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def remember(prompt: str, reply: str) -> float:
        asked.append(reply)
        return 0.0

    learner = make_learner(thinker, settings_of(iterations=1, max_new_tokens=160), tmp_path, function=remember)
    rollout = learner.draw()
    assert any(rollout.reasoning) and sorted(asked) == sorted(rollout.texts)
    kept = generations_of(rollout, learner.pool, "pol", "run", learner.settings)
    assert kept and all(one.tokens < 160 and "</think>" not in (one.reasoning or "") for one in kept)
    assert Rollout.from_state(rollout.to_state()).reasoning == rollout.reasoning
    all_ended = replace(rollout, ended=[True] * len(rollout.texts))
    lost = penalties(all_ended.lengths, all_ended.finished, learner.settings) > 0
    assert lost.any() and lost.tolist() == rollout.unfinished, "an end inside the reasoning is no end of a reply"
    added = ("reasoning", "lengths", "unfinished")
    state = {name: value for name, value in rollout.to_state().items() if name not in added}
    assert len(Rollout.from_state(state).lengths) == len(rollout.texts), "a state of an earlier version"


def test_rloo_scores_the_answer() -> None:
    scored: list[tuple[Any, str]] = []

    class Scorer:
        def score_all(self, exchanges: Any) -> list[float]:
            scored.extend(exchanges)
            return [0.0] * len(exchanges)

    reward = _reward_function(Scorer(), ReplyReader(thinking_tokenizer(OPENS)))
    reward(completions=["Hm.</think> Yes. ", "Hm"], conversation=[json.dumps(MESSAGES)] * 2)
    assert scored == [(MESSAGES, "Yes."), (MESSAGES, "")]
