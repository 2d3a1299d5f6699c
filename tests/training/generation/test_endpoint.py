"""A policy behind a server: it replies, it is judged, and whatever ails the server is said in a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback import formats
from feedback.database.engine import Database, open_database
from feedback.datasets.freeze import freeze
from feedback.errors import Conflict, EndpointFailed, InvalidInput, NotEnoughData
from feedback.store.content.generations import list_generations
from feedback.store.labeling.matchups import count_matchups
from feedback.store.models.policies import get_champion, get_policy, list_policies, promote_policy
from feedback.types import SamplingSettings
from tests.factories import draw_again, judge_by, longer, make_prompt
from tests.training.served import Served, complaint, reply_to, serving
from training.checkpoints.opening import open_policy, open_replier
from training.checkpoints.registration import add_policy, serve_model
from training.evaluation.win_rate import compare_policies
from training.generation.endpoint import KEY_VARIABLE, Endpoint, key_variable, split_base
from training.generation.sampling import sample
from training.home import Home
from training.loop.plan import Plan
from training.loop.rounds import Loop
from training.methods import METHODS
from training.models.loading import LoadedPolicy, load_base
from training.rewards.oracles import get_oracle
from training.runs.queue import submit

MESSAGES = [{"role": "user", "content": "Say it."}]
QUICK = SamplingSettings(max_new_tokens=8)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with serving("lab/chatty-7B") as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def endpoint(served: Served, pauses: list[float]) -> Endpoint:
    return Endpoint(served.base, pause=pauses.append)


def drawn(endpoint: Endpoint, *contents: str, k: int = 1) -> list[list[str]]:
    prompts = [[{"role": "user", "content": content}] for content in contents or ("Say it.",)]
    return [[reply.text for reply in own] for own in sample(endpoint, prompts, k, QUICK, seed=1)]


def test_each_reply_is_asked_for_with_its_own_seed_and_every_setting(served: Served, endpoint: Endpoint) -> None:
    settings = SamplingSettings(temperature=0.7, top_p=0.9, top_k=20, max_new_tokens=33)
    first, second = sample(endpoint, [MESSAGES], 2, settings, seed=5)[0]
    assert len({body["seed"] for body in served.bodies}) == 2
    for body in served.bodies:
        assert body["model"] == "lab/chatty-7B" and body["messages"] == MESSAGES
        assert {name: body[name] for name in ("temperature", "top_p", "top_k", "max_tokens")} == {
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 20,
            "max_tokens": 33,
        }
    assert (first.finish_reason, first.tokens, first.token_ids) == ("stop", 3, ())
    assert draw_again(endpoint, MESSAGES, settings, second.seed) == second
    assert "top_k" not in endpoint.body(MESSAGES, 1, QUICK)  # not all servers know it


def test_replies_come_back_in_the_order_of_the_prompts(endpoint: Endpoint) -> None:
    contents = [f"Say {number}." for number in range(40)]
    assert [own[0].rpartition(" ")[0] for own in drawn(endpoint, *contents)] == contents


def test_equal_and_blank_replies_are_drawn_again(served: Served, endpoint: Endpoint) -> None:
    texts = iter(["same", "same", "", "another"])
    served.behave = lambda body, before: reply_to(body, next(texts))
    assert sorted(drawn(endpoint, k=2)[0]) == ["another", "same"]


def test_a_busy_server_is_asked_again_and_its_wish_is_heeded(
    served: Served, endpoint: Endpoint, pauses: list[float]
) -> None:
    answers = iter([complaint(429, "slow down", Retry_After="7"), complaint(503, "loading")])
    served.behave = lambda body, before: next(answers, None) or reply_to(body, "at last")
    assert drawn(endpoint) == [["at last"]]
    assert pauses == [7.0, 2.0]


def test_a_server_that_stays_busy_is_said_to_be(served: Served, endpoint: Endpoint, pauses: list[float]) -> None:
    served.behave = lambda body, before: complaint(429, "out of credit", Retry_After="9999")
    with pytest.raises(EndpointFailed, match=r"busy 5 times in a row \(status 429: out of credit\)"):
        drawn(endpoint)
    assert pauses == [60.0] * 4


def test_nobody_there(pauses: list[float]) -> None:
    with serving("gone") as server:
        base = server.base
    with pytest.raises(EndpointFailed, match="No reply from http://127.0.0.1:.*see whether the server runs"):
        drawn(Endpoint(base, pause=pauses.append))
    assert len(pauses) == 4


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_is_sent_where_one_is_given_and_asked_for_where_it_is_missing(
    served: Served, endpoint: Endpoint, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.behave = lambda body, before: complaint(status, "who are you?")
    with pytest.raises(
        EndpointFailed,
        match=rf"to be given no key \(status {status}\): set \$STUDIO_ENDPOINT_KEY, or .*_127_0_0_1 for",
    ):
        drawn(endpoint)
    assert served.keys == [None]
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    with pytest.raises(EndpointFailed, match="refuses the key that it was given") as told:
        drawn(endpoint)
    assert served.keys[-1] == "Bearer sk-secret" and "sk-secret" not in str(told.value)


def test_a_model_that_is_gone_is_told_with_those_that_are_there(served: Served, endpoint: Endpoint) -> None:
    served.models = ["other", "another"]
    served.behave = lambda body, before: complaint(404, "no such model")
    with pytest.raises(EndpointFailed, match=r"knows no model 'lab/chatty-7B'\. Its models: other, another\."):
        drawn(endpoint)


def test_a_server_that_repeats_the_key_is_not_quoted_with_it(
    served: Served, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    for answer in (complaint(418, "bad key sk-secret"), complaint(400, "bad key sk-secret"), (200, "sk-secret", {})):
        served.behave = lambda body, before, answer=answer: answer  # type: ignore[misc]
        told = ""
        try:
            drawn(endpoint)
        except EndpointFailed as error:
            told = str(error)
        assert "(the key)" in told + endpoint.last_refusal and "sk-secret" not in told + endpoint.last_refusal


@pytest.mark.parametrize("key", ["sk-…", "sk-one\nsk-two", "sk one", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_never_quoted(
    served: Served, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(InvalidInput, match=r"\$STUDIO_ENDPOINT_KEY or .* holds a line break, a space or") as told:
        drawn(endpoint)
    assert key not in str(told.value) and not served.bodies


@pytest.mark.parametrize("variable", [("ALL_PROXY", "socks9://127.0.0.1:9"), ("SSL_CERT_FILE", "/not/there.pem")])
def test_an_environment_that_allows_no_connection_is_told_in_a_sentence(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]
) -> None:
    monkeypatch.setenv(*variable)
    with pytest.raises(InvalidInput, match="The proxy or certificates that the environment names cannot be used"):
        drawn(endpoint)


def answer_with(content: str, usage: str = "{}", reason: str = '"stop"') -> str:
    choice = f'{{"message": {{"content": {content}}}, "finish_reason": {reason}}}'
    return f'{{"choices": [{choice}], "usage": {usage}}}'


@pytest.mark.parametrize("tokens", ["1e999", "-4", "1" + "0" * 30, '"many"', "true", "2.5"])
def test_a_count_of_tokens_that_is_none_does_no_harm(served: Served, endpoint: Endpoint, tokens: str) -> None:
    served.behave = lambda body, before: (200, answer_with('"x"', f'{{"completion_tokens": {tokens}}}'), {})
    assert sample(endpoint, [MESSAGES], 1, QUICK)[0][0].tokens == 0


def test_a_text_in_parts_is_put_together(served: Served, endpoint: Endpoint) -> None:
    parts = (
        '[{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hello "}, {"type": "text", "text": "you"}]'
    )
    served.behave = lambda body, before: (200, answer_with(parts), {})
    assert drawn(endpoint) == [["Hello you"]]


@pytest.mark.parametrize(
    ("said", "meant"), [("length", "length"), ("eos_token", "stop"), ("end_turn", "stop"), ("refused", "stop")]
)
def test_the_end_of_a_reply_has_one_name(served: Served, endpoint: Endpoint, said: str, meant: str) -> None:
    served.behave = lambda body, before: reply_to(body, "x", said)
    assert sample(endpoint, [MESSAGES], 1, QUICK)[0][0].finish_reason == meant


def test_an_answer_that_cannot_be_unpacked_is_no_reply(served: Served, endpoint: Endpoint) -> None:
    served.behave = lambda body, before: (200, "nonsense", {"Content-Encoding": "gzip"})
    with pytest.raises(EndpointFailed, match="No reply from .* decompressing"):
        drawn(endpoint)


@pytest.mark.parametrize(
    "said",
    [
        "<html>hello</html>",
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        "[1]",
        "[" * 100_000,
        answer_with('{"a": 1}'),
        answer_with('[{"type": "text", "text": 1}]'),
    ],
    ids=lambda said: said[:40],
)
def test_what_is_no_completion_is_quoted(served: Served, endpoint: Endpoint, said: str) -> None:
    served.behave = lambda body, before: (200, said, {})
    with pytest.raises(EndpointFailed, match="does not speak OpenAI's chat completions: .*usually ends with /v1"):
        drawn(endpoint)


def test_another_name_for_the_limit_and_no_seed_are_learnt_once(served: Served, endpoint: Endpoint) -> None:
    def picky(body: dict[str, Any], before: int) -> Any:
        if "max_tokens" in body:
            return complaint(400, "'max_tokens' is not supported here. Use 'max_completion_tokens' instead.")
        return complaint(422, "extra inputs are not permitted: 'seed'") if "seed" in body else reply_to(body, "fine")

    served.behave = picky
    assert drawn(endpoint, *(f"Say {number}." for number in range(12))) == [["fine"]] * 12
    assert served.bodies[-1]["max_completion_tokens"] == 8
    asked = len(served.bodies)
    drawn(endpoint)
    assert len(served.bodies) == asked + 1


def test_a_refused_prompt_is_no_reply_and_not_asked_again(served: Served, endpoint: Endpoint) -> None:
    def strict(body: dict[str, Any], before: int) -> Any:
        long = "long" in body["messages"][-1]["content"]
        return complaint(400, "the maximum context length is 12, plant a seed elsewhere") if long else reply_to(body)

    served.behave = strict
    replies = sample(endpoint, [MESSAGES, [{"role": "user", "content": "long"}]], 2, QUICK, seed=1)
    assert [reply.finish_reason for reply in replies[1]] == ["refused", "refused"]
    assert len(served.bodies) == 4 and all("seed" in body for body in served.bodies)
    assert "maximum context length is 12" in endpoint.last_refusal


def test_what_no_database_could_hold_is_made_readable(served: Served, endpoint: Endpoint, db: Database) -> None:
    served.behave = lambda body, before: reply_to(body, "a\0b \ud83d\ude00 \ud800 c")
    assert drawn(endpoint) == [["a�b 😀 � c"]]


def test_it_fills_the_pool_and_only_what_is_refused_is_missing(served: Served, make_context: Any) -> None:
    context = make_context("generate", {"limit": 30, "policy": "chatty-7B", "seed": 3})
    policy = add_policy(context.db, served.base)
    prompts = [make_prompt(context.db, f"Say {number}.") for number in range(30)]
    served.behave = lambda body, before: (
        complaint(400, "against the rules") if "Say 7." in body["messages"][-1]["content"] else reply_to(body)
    )
    result = METHODS["generate"].run(context)
    assert (result["generations"], result["matchups"]) == (58, 29)
    assert result["refused_reasons"] == {"refused": 1}
    row = list_generations(context.db, prompt_id=prompts[0].id)[0]
    assert (row.policy_id, row.text.startswith("Say 0. ")) == (policy.id, True)
    assert str(row.seed) in row.text


def test_a_server_that_refuses_everything_ends_the_run_with_its_words(served: Served, make_context: Any) -> None:
    context = make_context("generate", {"limit": 100, "policy": "chatty-7B"})
    add_policy(context.db, served.base)
    for number in range(100):
        make_prompt(context.db, f"Say {number}.")
    served.behave = lambda body, before: complaint(400, "temperature must be 1 for this model")
    with pytest.raises(EndpointFailed, match=r"will not reply as 'lab/chatty-7B': temperature must be 1"):
        METHODS["generate"].run(context)
    assert len(served.bodies) < 60


def test_what_was_drawn_before_the_server_went_away_is_kept_and_taken_up(
    served: Served, make_context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.generation.endpoint.TRIES", 1)
    config = {"limit": 20, "policy": "chatty-7B", "seed": 3}
    context = make_context("generate", config)
    add_policy(context.db, served.base)
    for number in range(20):
        make_prompt(context.db, f"Say {number}.")
    served.behave = lambda body, before: reply_to(body) if before < 10 else complaint(500, "out of memory")
    with pytest.raises(EndpointFailed, match="out of memory"):
        METHODS["generate"].run(context)
    assert count_matchups(context.db).open == 5  # a chunk of one prompt and a chunk of four
    served.behave = lambda body, before: reply_to(body)
    result = METHODS["generate"].run(make_context("generate", config, attempt=2, run=context.run))
    assert (result["matchups"], count_matchups(context.db).open) == (20, 20)


def test_it_is_measured_against_a_model_that_is_here(served: Served, endpoint: Endpoint, tiny_base: Path) -> None:
    local = LoadedPolicy(*load_base(str(tiny_base), "cpu"), str(tiny_base))
    prompts = [[{"role": "user", "content": f"Say {number}."}] for number in range(6)]
    served.behave = lambda body, before: (
        complaint(400, "no") if "Say 3." in body["messages"][-1]["content"] else reply_to(body, "word " * 50)
    )
    oracle = get_oracle("longer")
    card = compare_policies(endpoint, local, oracle, prompts, samples=1, sampling=QUICK)
    assert (card["win_rate"], card["kl"], card["n_prompts"], card["n_refused"]) == (1.0, None, 5, 1)
    assert compare_policies(local, endpoint, oracle, prompts, samples=1, sampling=QUICK)["win_rate"] == 0.0
    served.behave = lambda body, before: complaint(400, "no")
    with pytest.raises(NotEnoughData, match="0 of 6 prompts were replied to"):
        compare_policies(endpoint, local, oracle, prompts, samples=1, sampling=QUICK)


def test_it_serves_but_nothing_can_train_it_or_look_into_it(
    served: Served, db: Database, home: Home, tiny_policy: Any, dataset: str
) -> None:
    assert serve_model(db, served.base).name == "chatty-7B"
    assert serve_model(db, served.base).id == get_policy(db, "chatty-7B").id
    champion = get_champion(db)
    assert champion is not None and champion.is_endpoint
    for method in ("sft", "dpo", "reward", "ppo"):
        with pytest.raises(Conflict, match="replies over HTTP, from .*its weights, which this needs, are not here"):
            submit(
                db, method, {"dataset": dataset} | ({"reward_function": "length_band:1-9"} if method == "ppo" else {})
            )
    assert submit(db, "dpo", {"dataset": dataset, "parent": "tiny"}).config["parent"] == "tiny"
    with pytest.raises(Conflict, match="its weights"):
        open_policy(db, home, "chatty-7B")
    with pytest.raises(Conflict, match="its weights"):
        Loop(db, home, Plan(rounds=1), wait_for=lambda run: run).run()
    assert isinstance(open_replier(db, home, "chatty-7B"), Endpoint)
    assert isinstance(open_replier(db, home, "tiny"), LoadedPolicy)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("http://", "not the address of a server"),
        ("http://host:port/v1#m", "not the address of a server"),
        ("http://host/v1?key=1#m", "not the address of a server"),
        ("http://me:secret@host/v1#m", "must not hold a password: give the key to host as"),
        ("http://host/v1", "without a model"),
        ("http://host/v1#  ", "without a model"),
        ("http://host/v1 #m", "not the address of a server"),
        ("http://host/v1#m\nn", "one line of signs that can be read"),
    ],
)
def test_an_address_that_names_no_server_or_no_model_is_refused(base: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        split_base(base)


def test_a_model_is_looked_for_before_it_is_registered(served: Served, db: Database) -> None:
    with pytest.raises(InvalidInput, match=r"has no model 'lab/other'\. Its models: lab/chatty-7B\."):
        add_policy(db, f"{served.url}#lab/other")
    assert add_policy(db, served.url + "/").base == served.base  # one model needs no name
    assert add_policy(db, served.base, "mine").name == "mine"
    served.models = ["one", "two"]
    with pytest.raises(InvalidInput, match=r"without a model; name one behind a #\. Its models: one, two\."):
        add_policy(db, served.url)
    served.models = []
    assert add_policy(db, f"{served.url}#unlisted").name == "unlisted"
    assert sorted(policy.name for policy in list_policies(db)) == ["chatty-7B", "mine", "unlisted"]


def test_a_file_of_judgments_does_not_bring_a_server_along(
    served: Served, make_context: Any, db: Database, tmp_path: Path
) -> None:
    add_policy(db, served.base)
    make_prompt(db, "Say it.")
    METHODS["generate"].run(make_context("generate", {"policy": "chatty-7B"}))
    judge_by(db, longer)
    freeze(db, "d")
    path = formats.export_dataset(db, "d", "raw", tmp_path / "d.jsonl").path
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["policies"][0]["note"].endswith("cannot reply here")
    rows[0]["policies"][0]["note"] = ""
    path.write_text("\n".join(map(json.dumps, rows)))
    other = open_database(tmp_path / "other.db")
    formats.import_file(other, path, "raw")
    with pytest.raises(Conflict, match="a server replied for it elsewhere, and it cannot reply here"):
        promote_policy(other, "chatty-7B")
    with pytest.raises(Conflict, match=r"already another policy 'chatty-7B': .* --name NAME"):
        add_policy(other, served.base)
    mine = add_policy(other, served.base, "mine")
    assert mine.can_reply and add_policy(other, served.base).id == mine.id


def test_a_host_has_a_key_of_its_own_which_no_other_is_sent(
    served: Served, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-general")
    monkeypatch.setenv(key_variable("api.example.com"), "sk-elsewhere")
    drawn(endpoint)
    monkeypatch.setenv(key_variable("127.0.0.1"), "sk-own")
    drawn(endpoint)
    assert served.keys == ["Bearer sk-general", "Bearer sk-own"]
    assert key_variable("api.example.com") == "STUDIO_ENDPOINT_KEY_API_EXAMPLE_COM"
    served.behave = lambda body, before: complaint(400, "sk-own may not do that")
    drawn(endpoint)
    assert endpoint.last_refusal.endswith("(the key) may not do that")


def test_what_is_usual_may_be_left_out_and_nothing_else(served: Served, endpoint: Endpoint) -> None:
    served.behave = lambda body, before: (
        complaint(400, "unsupported parameter: 'top_p'") if "top_p" in body else reply_to(body, "fine")
    )
    assert drawn(endpoint) == [["fine"]]
    with pytest.raises(EndpointFailed):
        refused = Endpoint(served.base)
        sample(refused, [MESSAGES], 1, SamplingSettings(top_p=0.9), seed=1)
        raise EndpointFailed(refused.last_refusal)
    assert served.bodies[-1]["top_p"] == 0.9


def test_a_model_that_is_known_needs_no_server_to_be_found(db: Database) -> None:
    with serving("m") as server:
        row = add_policy(db, server.base)
        base = server.base
    assert serve_model(db, base).id == row.id


def test_a_redirect_is_not_followed_and_the_key_stays_here(
    served: Served, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret")
    with serving("elsewhere") as other:
        served.behave = lambda body, before: (307, "", {"Location": f"{other.url}/chat/completions"})
        with pytest.raises(EndpointFailed, match="answers with status 307"):
            drawn(endpoint)
        assert other.bodies == [] and other.keys == []
