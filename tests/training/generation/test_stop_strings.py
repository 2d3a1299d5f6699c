"""Stop strings and end tokens: a reply ends at the first of them, however it is cut into tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from feedback.store.content.generations import list_generations
from feedback.types import SamplingSettings
from tests.factories import make_prompt
from tests.training.served import Served, complaint, reply_to, serving
from training.generation.decoding import decode
from training.generation.endpoint import KEY_VARIABLE, Endpoint
from training.generation.sampling import end_tokens, sample
from training.generation.stop_strings import StopStrings
from training.methods import METHODS
from training.methods.rft import select_best
from training.models.chat import Messages, encode_prompt
from training.models.loading import LoadedPolicy, load_base
from training.settings.rft import RftSettings

PROMPTS = [[{"role": "user", "content": text}] for text in ("hi", "a longer prompt", "ok?")]
LONG = SamplingSettings(max_new_tokens=40)


@pytest.fixture(scope="module")
def policy(tiny_base: Path) -> LoadedPolicy:
    return LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))


def pieces(policy: LoadedPolicy) -> list[str]:
    """Two printable characters in a row of each of many replies that were drawn without a stop string."""
    texts = [reply.text for own in sample(policy, PROMPTS, 4, LONG, seed=3, distinct=False) for reply in own]
    found = [text[i : i + 2] for text in texts for i in range(4, len(text) - 2)]
    return [piece for piece in found if piece.isascii() and piece.isprintable() and " " not in piece]


def test_a_reply_ends_before_a_string_that_spans_tokens(policy: LoadedPolicy) -> None:
    plain = [one for own in sample(policy, PROMPTS, 4, LONG, seed=3, distinct=False) for one in own]
    stop = [pieces(policy)[0]]
    assert len(policy.tokenizer(stop[0], add_special_tokens=False)["input_ids"]) == 2
    settings = LONG.model_copy(update={"stop": stop})
    cut = [one for own in sample(policy, PROMPTS, 4, settings, seed=3, distinct=False) for one in own]
    held = [stop[0] in one.text for one in plain]
    assert any(held) and not all(held)
    for before, after, has in zip(plain, cut, held, strict=True):
        if not has:
            assert after == before, "the draw of other replies is not touched"
            continue
        assert after.text == before.text.partition(stop[0])[0].strip()
        assert after.finish_reason == "stop"
        assert after.token_ids == before.token_ids[: len(after.token_ids)]
        assert after.tokens == len(after.token_ids) - 2


def test_the_first_of_several_strings_ends_it(policy: LoadedPolicy) -> None:
    text = StopStrings(policy.tokenizer, ["\n\n", "User:"])
    ids = policy.tokenizer("Yes.\n\nUser: no", add_special_tokens=False)["input_ids"]
    grown = [text.found(ids[:size]) for size in range(1, len(ids) + 1)]
    assert grown.index(True) == len("Yes.\n\n") - 1
    assert text.cut("Yes.\n\nUser: no") == "Yes."
    assert policy.tokenizer.decode(text.body(ids)) == "Yes."
    assert not text.found(policy.tokenizer("Yes. User", add_special_tokens=False)["input_ids"])


def test_a_character_of_several_tokens_is_found(policy: LoadedPolicy) -> None:
    stop = StopStrings(policy.tokenizer, ["é"])
    ids = policy.tokenizer("caf\u00e9s", add_special_tokens=False)["input_ids"]
    assert [stop.found(ids[:size]) for size in range(1, 7)] == [False] * 4 + [True, True]
    assert policy.tokenizer.decode(stop.body(ids)) == "caf"


def test_a_string_that_is_a_special_token_ends_as_an_end_token(policy: LoadedPolicy) -> None:
    stops = StopStrings(policy.tokenizer, ["<|user|>"])
    user = policy.tokenizer.convert_tokens_to_ids("<|user|>")
    assert not stops and user in end_tokens(policy, stops) and user not in end_tokens(policy)


def test_every_end_token_of_the_generation_config_ends_a_reply(policy: LoadedPolicy, monkeypatch: Any) -> None:
    other = policy.tokenizer.convert_tokens_to_ids("<|system|>")
    monkeypatch.setattr(policy.model.generation_config, "eos_token_id", [1, other])
    assert end_tokens(policy) == [1, other]
    prompts = [encode_prompt(policy.tokenizer, PROMPTS[0])] * 60
    drawn = decode(policy.model, prompts, range(60), ends=end_tokens(policy), max_new_tokens=60, temperature=2.0)
    assert {one.tokens[-1] for one in drawn if one.ended} == {1, other}


def test_a_run_takes_those_of_the_generation_config_and_records_them(
    make_context: Any, policy: LoadedPolicy, tiny_base: Path
) -> None:
    stop = pieces(policy)[:3]
    path = tiny_base / "generation_config.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), "stop_strings": stop}))
    try:
        context = make_context("generate", {"max_new_tokens": 40, "seed": 3})
        prompt = make_prompt(context.db, "hi")
        METHODS["generate"].run(context)
        asked = make_context("generate", {"max_new_tokens": 40, "seed": 3, "stop": '["x", "\\n\\n"]'})
        assert asked.settings.stop == ["x", "\n\n"]
    finally:
        path.write_text(before)
    rows = list_generations(context.db, prompt_id=prompt.id)
    assert {tuple(row.sampling["stop"]) for row in rows} == {tuple(dict.fromkeys(stop))}
    assert not any(text in row.text for row in rows for text in stop)
    said = "\n".join(context.progress.lines)
    assert "a reply ends with '<|end|>', or before " in said and repr(stop[0]) in said


class Longest:
    """Scores the length of a reply."""

    def score_all(self, exchanges: Sequence[tuple[Messages, str]]) -> list[float]:
        return [float(len(reply)) for _, reply in exchanges]


def test_rft_keeps_replies_that_a_stop_string_ended(policy: LoadedPolicy) -> None:
    stop = list(dict.fromkeys("".join(pieces(policy))))[:16]
    settings = RftSettings(reward_function="no_repetition", samples=8, max_new_tokens=40, stop=stop, seed=3)
    kept = select_best(policy, Longest(), PROMPTS, settings).kept
    assert len(kept) == 3 and not any(text in one.reply for one in kept for text in stop)


@pytest.mark.parametrize(
    ("stop", "says"),
    [([""], "1 to 200 characters"), (["a"] * 3 + list(map(str, range(16))), "16 strings"), ('["a', "JSON")],
)
def test_what_cannot_be_a_stop_string_is_refused(make_context: Any, stop: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_context("generate", {"stop": stop})


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving("lab/chatty-7B") as server:
        yield server


def test_an_endpoint_is_sent_them_and_cut_where_it_ignores_them(served: Served) -> None:
    settings = SamplingSettings(stop=["\n\n", "User:"])
    served.behave = lambda body, before: reply_to(body, "Fine.\nUser: and you?", "length")
    (said,) = Endpoint(served.base).reply_all([(PROMPTS[0], 1)], settings)
    assert served.bodies[0]["stop"] == ["\n\n", "User:"]
    assert (said.text, said.finish_reason) == ("Fine.", "stop")
    served.behave = lambda body, before: (
        complaint(400, "Unsupported parameter: 'stop'") if "stop" in body else reply_to(body, "Fine. User: yes")
    )
    (said,) = Endpoint(served.base).reply_all([(PROMPTS[0], 1)], settings)
    assert said.text == "Fine."
    assert "stop" not in Endpoint(served.base).body(PROMPTS[0], 1, SamplingSettings())
