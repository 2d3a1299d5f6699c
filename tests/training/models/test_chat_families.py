"""What a model is trained to say is what its own chat template says, to the token, for every family of templates."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any

import pytest

from tests.training.families import BRACKETS, FAMILIES, ZEPHYR, Family, template_of, tokenizer_of
from training.models import chat, chat_template
from training.models.chat import encode_exchange, encode_prompt, encode_replies
from training.models.chat_template import Unencodable

ASK = [{"role": "user", "content": "What do people do in the rain?"}]
LONGER = [*ASK, {"role": "assistant", "content": "They cook."}, {"role": "user", "content": "And then?"}]
REPLY = "Read a book.\n\nThen talk about the weather."
NOT_SHOWN_AGAIN = {"deepseek_r1"}  # opens a thought that the finished exchange does not show
METASPACE = Family("", "</s>", "</s>", ("<s>",), "<s>", "metaspace")


def rendered(tokenizer: Any, messages: list[dict[str, str]], reply: str) -> list[int]:
    text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": reply}], tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(params=FAMILIES)
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, tokenizer_of(FAMILIES[request.param])


@pytest.mark.parametrize("messages", [ASK, LONGER], ids=["one turn", "two turns"])
@pytest.mark.parametrize("reply", [REPLY, "  spaced  ", "日本語 🙂 tail"], ids=["plain", "spaced", "other scripts"])
def test_prompt_and_reply_are_the_rendered_conversation(
    named: tuple[str, Any], messages: list[dict[str, str]], reply: str
) -> None:
    name, tokenizer = named
    exchange = encode_exchange(tokenizer, messages, reply)
    assert tokenizer.convert_ids_to_tokens(exchange.reply[-1]) == FAMILIES[name].turn
    assert exchange.as_rendered is (name not in NOT_SHOWN_AGAIN)
    if exchange.as_rendered:
        assert exchange.ids == rendered(tokenizer, messages, reply)[: len(exchange.ids)]
    asked = encode_prompt(tokenizer, messages)
    assert exchange.prompt == asked[: len(exchange.prompt)]
    assert len(asked) - len(exchange.prompt) <= 1  # a token may span the seam


def opens_a_thought(tokenizer: Any) -> bool:
    return tokenizer.decode(encode_prompt(tokenizer, ASK)).rstrip().endswith("<think>")


def test_a_cut_reply_ends_where_it_was_cut(named: tuple[str, Any]) -> None:
    name, tokenizer = named
    text = "Rain.\n</think>\n\nRead a boo" if opens_a_thought(tokenizer) else "Read a boo"
    cut, whole = (encode_exchange(tokenizer, ASK, text, ended=ended) for ended in (False, True))
    assert whole.ids[: len(cut.ids)] == cut.ids
    ends = {tokenizer.convert_tokens_to_ids(FAMILIES[name].turn), tokenizer.eos_token_id}
    assert not ends & set(cut.reply)


@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3_5_think"])
def test_a_reply_that_was_cut_is_the_answer_where_the_prompt_opens_a_thought(name: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    assert opens_a_thought(tokenizer)
    cut, whole = (encode_exchange(tokenizer, ASK, "Read a boo", ended=ended) for ended in (False, True))
    assert whole.ids[: len(cut.ids)] == cut.ids
    assert re.search(r"<think>\s*</think>\s*Read a boo$", tokenizer.decode(cut.ids))


def test_a_reply_that_was_cut_inside_a_thought_stays_in_it() -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    reply = "<think>\nPeople ask about the rain. Read a"
    cut = encode_exchange(tokenizer, ASK, reply, ended=False)
    assert tokenizer.decode(cut.ids) == tokenizer.decode(encode_prompt(tokenizer, ASK)) + reply
    assert tokenizer.decode(cut.ids).count("think>") == 1 and not cut.as_rendered


def test_two_replies_are_encoded_as_each_alone(named: tuple[str, Any]) -> None:
    """Each may need another mark in the prompt, which spells a control token here."""
    name, tokenizer = named
    messages = [{"role": "user", "content": f"What is {FAMILIES[name].turn}?"}]
    replies = [("An end.", True), ("\ue200 stands for it", True), ("\ue201 or a boo", False)]
    together = encode_replies(tokenizer, messages, replies)
    assert [one.ids for one in together] == [
        encode_exchange(tokenizer, messages, text, ended=ended).ids for text, ended in replies
    ]


def test_no_text_spells_the_stand_in_of_a_control_token(named: tuple[str, Any]) -> None:
    name, tokenizer = named
    end = FAMILIES[name].turn
    stand_ins = " ".join(f"\ue300{number}{quote}" for number in range(6) for quote in "\ue300\ue301")
    plain = [{"role": "user", "content": "x"}]
    hostile = [{"role": "user", "content": f"{end} {stand_ins}"}]
    control = set(tokenizer.all_special_ids)
    count = [sum(token in control for token in encode_prompt(tokenizer, one)) for one in (plain, hostile)]
    assert count[0] == count[1]
    assert stand_ins in tokenizer.decode(encode_prompt(tokenizer, hostile))


def test_text_never_becomes_a_control_token(named: tuple[str, Any]) -> None:
    name, tokenizer = named
    family = FAMILIES[name]
    control = {tokenizer.convert_tokens_to_ids(token) for token in (family.turn, family.eos, *family.control)}
    spelled = " ".join((family.turn, family.eos, *family.control))
    plain = encode_exchange(tokenizer, [{"role": "user", "content": "Translate: x"}], "It is x.")
    hostile = encode_exchange(tokenizer, [{"role": "user", "content": f"Translate: {spelled}"}], f"It is {spelled}.")
    assert [i for i in hostile.ids if i in control] == [i for i in plain.ids if i in control]
    assert f"It is {spelled}." in tokenizer.decode(hostile.reply)
    assert f"Translate: {spelled}" in tokenizer.decode(hostile.prompt)
    assert (
        encode_prompt(tokenizer, [{"role": "user", "content": f"Translate: {spelled}"}])[:-1]
        == hostile.prompt[: len(encode_prompt(tokenizer, [{"role": "user", "content": f"Translate: {spelled}"}])) - 1]
    )


@pytest.mark.parametrize("is_cut", [False, True])
def test_the_tags_of_a_thought_that_are_special_tokens_stay_in_a_reply(is_cut: bool) -> None:
    """As GLM-4.5 and others have them."""
    from tokenizers import AddedToken

    tokenizer = tokenizer_of(FAMILIES["qwen3"])
    plain = tokenizer_of(FAMILIES["qwen3"])
    tokenizer.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in ("<think>", "</think>")])
    assert all(
        tokenizer.added_tokens_decoder[tokenizer.convert_tokens_to_ids(t)].special for t in ("<think>", "</think>")
    )
    said = "<think>\nIt may rain." + ("" if is_cut else "\n</think>\n\nTake a coat.")
    ids = tokenizer(said)["input_ids"] + ([] if is_cut else [tokenizer.eos_token_id])
    assert chat.decode_reply(tokenizer, ids) == said == chat.decode_reply(plain, ids)


@pytest.mark.parametrize(
    ("normalizer", "spell"),
    [
        ("NFKC", lambda token: "".join(chr(ord(letter) + 0xFEE0) for letter in token)),  # its full-width letters
        ("Lowercase", str.upper),
    ],
)
@pytest.mark.parametrize("before", ["", "<|im_end|> "])
def test_what_a_tokenizer_normalizes_into_a_control_token_is_text(normalizer: str, spell: Any, before: str) -> None:
    from tokenizers import AddedToken, Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    known = tokenizer_of(FAMILIES["qwen3"])
    described = json.loads(known.backend_tokenizer.to_str())
    for token in described["added_tokens"]:
        token["normalized"] = True
    core = Tokenizer.from_str(json.dumps(described))
    core.normalizer = getattr(normalizers, normalizer)()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=known.eos_token, chat_template=known.chat_template
    )
    assert isinstance(tokenizer.added_tokens_decoder[tokenizer.eos_token_id], AddedToken)
    spelled = spell("<|im_end|>")
    assert tokenizer(spelled)["input_ids"] == tokenizer("<|im_end|>")["input_ids"], "it is read as the token"
    ends = [tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>")]

    def count(text: str) -> tuple[int, int]:
        exchange = encode_exchange(tokenizer, [{"role": "user", "content": f"Say {text}"}], f"No {text}")
        prompt = encode_prompt(tokenizer, [{"role": "user", "content": f"Say {text}"}])
        return sum(token in ends for token in exchange.ids), sum(token in ends for token in prompt)

    assert count(before + spelled) == count("it")


def prepended(*, normalized: bool) -> Any:
    """A tokenizer that puts a sign before each text, with thought tags that it may look for in the changed text."""
    from tokenizers import AddedToken, Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    known = tokenizer_of(FAMILIES["qwen2_5"])
    core = Tokenizer.from_str(known.backend_tokenizer.to_str())
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.add_tokens([AddedToken(tag, normalized=normalized) for tag in ("<think>", "</think>")])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=known.eos_token, chat_template=known.chat_template)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("asked", ["Hi", "Hi <|im_end|>"])
def test_no_stand_in_is_left_in_what_is_trained_on(normalized: bool, asked: str) -> None:
    """A tag that is looked for behind that sign is text after a new line, for the tokenizer and for us."""
    tokenizer = prepended(normalized=normalized)
    try:
        exchange = encode_exchange(tokenizer, [{"role": "user", "content": asked}], "<think>a</think> b")
    except Unencodable:
        assert normalized and asked != "Hi", "what cannot be told apart is refused, and nothing else"
    else:
        assert not any("\ue000" <= letter <= "\uf8ff" for letter in tokenizer.decode(exchange.ids))


def test_two_replies_share_one_prompt(named: tuple[str, Any]) -> None:
    _, tokenizer = named
    one, other = encode_replies(tokenizer, ASK, [("\n\nfirst", True), ("second", True)])
    assert one.prompt == other.prompt
    assert one.ids == encode_exchange(tokenizer, ASK, "\n\nfirst").ids
    assert other.ids == encode_exchange(tokenizer, ASK, "second").ids


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3", "<think>\n\n</think>\n\nParis.<|im_end|>"),
        ("qwen3_5_think", "\n</think>\n\nParis.<|im_end|>"),
        ("deepseek_r1", "\n</think>\n\nParis.<｜end▁of▁sentence｜>"),
    ],
)
def test_a_reply_without_a_thought_stands_behind_an_empty_one(name: str, expected: str) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    exchange = encode_exchange(tokenizer, ASK, "Paris.")
    asked = chat.prompt_text(tokenizer, ASK)
    assert tokenizer.decode(exchange.ids) == asked + expected


def test_a_drawn_thought_is_kept_as_it_was_drawn() -> None:
    tokenizer = tokenizer_of(FAMILIES["deepseek_r1"])
    exchange = encode_exchange(tokenizer, ASK, "People cook.</think>\n\nCook.")
    assert tokenizer.decode(exchange.ids).endswith("<think>\nPeople cook.</think>\n\nCook.<｜end▁of▁sentence｜>")
    assert tokenizer.convert_tokens_to_ids("</think>") in exchange.reply


def test_no_leading_space_is_put_before_a_reply() -> None:
    tokenizer = tokenizer_of(METASPACE, ZEPHYR)
    exchange = encode_exchange(tokenizer, ASK, "Read a book.")
    apart = tokenizer("Read a book.", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(apart)[0].startswith("▁")
    assert not tokenizer.convert_ids_to_tokens(exchange.reply)[0].startswith("▁")
    assert exchange.ids == rendered(tokenizer, ASK, "Read a book.")[: len(exchange.ids)]


def test_a_template_that_forgets_the_system_message_is_trained_behind_the_prompt_it_asks_with() -> None:
    tokenizer = tokenizer_of(METASPACE, BRACKETS)
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    exchange = encode_exchange(tokenizer, messages, "Cook.")
    assert not exchange.as_rendered
    assert "Be brief." in tokenizer.decode(exchange.prompt)
    assert tokenizer.decode(exchange.ids).endswith("[/INST] Cook.</s>")


def test_a_system_message_begins_the_first_user_message_where_the_template_has_no_such_role() -> None:
    brief = [{"role": "system", "content": "Be brief."}]
    folded = [{"role": "user", "content": f"Be brief.\n\n{ASK[0]['content']}"}, *LONGER[1:]]
    silent = "{% for m in messages if m['role'] != 'system' %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    for tokenizer in (tokenizer_of(FAMILIES["gemma"]), tokenizer_of(METASPACE, silent)):
        assert not chat_template.has_system_role(tokenizer)
        assert encode_prompt(tokenizer, [*brief, *LONGER]) == encode_prompt(tokenizer, folded)
        assert encode_exchange(tokenizer, [*brief, *LONGER], REPLY) == encode_exchange(tokenizer, folded, REPLY)
    hostile = encode_prompt(
        tokenizer_of(FAMILIES["gemma"]), [{"role": "system", "content": "Say <end_of_turn>."}, *ASK]
    )
    plain = encode_prompt(tokenizer_of(FAMILIES["gemma"]), [*brief, *ASK])
    end = tokenizer_of(FAMILIES["gemma"]).convert_tokens_to_ids("<end_of_turn>")
    assert hostile.count(end) == plain.count(end)
    for name in ("qwen2_5", "llama3", "phi3", "gemma3"):
        assert chat_template.has_system_role(tokenizer_of(FAMILIES[name]))


def test_a_conversation_the_template_refuses_is_named_as_such() -> None:
    tokenizer = tokenizer_of(FAMILIES["gemma"])
    with pytest.raises(chat.TemplateRefused, match="system, user, user: Conversation roles must alternate"):
        encode_prompt(tokenizer, [{"role": "system", "content": "Be brief."}, *ASK, *ASK])
    broken = tokenizer_of(METASPACE, "{{ messages[0]['content'] + 1 }}")
    with pytest.raises(chat.TemplateRefused, match="chat template refuses a conversation of user"):
        encode_prompt(broken, ASK)


def test_a_template_without_an_end_is_closed_by_the_tokenizers_own() -> None:
    tokenizer = tokenizer_of(
        METASPACE, "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    )
    assert chat_template.end_of_turn(tokenizer) == "</s>"
    assert tokenizer.decode(encode_exchange(tokenizer, ASK, "Cook.").reply).endswith("Cook.</s>")


def test_a_tokenizer_that_cannot_tell_text_from_control_says_so() -> None:
    tokenizer = tokenizer_of(FAMILIES["qwen2_5"])

    class Slow:
        """The tokenizer as one without a fast backend looks."""

        backend_tokenizer = None

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return tokenizer(*args, **kwargs)

    with pytest.raises(chat.ControlTokenInText, match="control token"):
        encode_exchange(Slow(), ASK, "It ends with <|im_end|>.")


@pytest.mark.parametrize("name", ["llama3_2", "gptoss"])
def test_the_date_of_a_template_is_the_same_for_ever(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(FAMILIES[name])
    assert chat_template.uses_clock(tokenizer)
    shown = {"llama3_2": "Today Date: 01 Jan 2026", "gptoss": "Current date: 2026-01-01"}[name]
    assert shown in chat.prompt_text(tokenizer, ASK)
    chat_template.fix_template_date(tokenizer, date(2026, 11, 28))
    assert shown not in chat.prompt_text(tokenizer, ASK)
    chat_template.fix_template_date(tokenizer)
    assert shown in chat.prompt_text(tokenizer, ASK)
    assert tokenizer.chat_template.endswith(template_of(FAMILIES[name]))


def test_every_directive_of_a_date_is_written() -> None:
    day = date(2025, 3, 9)
    for form, written in {"%d %b %Y": "09 Mar 2025", "%-d %B %y": "9 March 25", "%A, %Y-%m-%d": "Sunday, 2025-03-09",
                          "100%% %H:%M": "100% 00:00"}.items():  # fmt: skip
        tokenizer = tokenizer_of(METASPACE, "{{ strftime_now('" + form + "') }}")
        chat_template.fix_template_date(tokenizer, day)
        assert chat_template.render(tokenizer, ASK, generation_prompt=True) == written
