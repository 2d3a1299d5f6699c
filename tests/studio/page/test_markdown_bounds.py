"""Formatting takes time in proportion to a text, whatever the text is; what would take long is shown as written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from studio.page import markdown
from studio.page.markdown import MAX_CHARACTERS, formatted

SIZE = MAX_CHARACTERS
ROOT = Path(__file__).parents[3]
REPEATED = [
    r"\(", r"\[", r"\(\[", r"\(x ", r"\)", "$$", "$$a ", "$a ", "$1 ", "$1^ ", "\\", "![", "[", "[]", "[a](", "![a](",
    "[a](<b", '[a](b "', "[a](b", "](", "[x ", "[nest](", "[`", "[*", "[$", "[\\(", "![\\(", "[a\n", "![a\n", "[a][b]",
    "[a]: b\n", "`", "`a ", "`` ` ", "*", "*a ", "a*", "*a_", "**a*", "*a **a ", "_a ", "~~", "~~a ", "a**b", "***a",
    "*a_b~~c", ">", "> ", "> a\n", ">" * 50 + "\n", "> - ", "- > ", "- ", "- a\n", "- a\n\n\n", "-\n", "1. ", "1. a\n",
    "* * *\n", "- * + 1. ", "999999999. ", "```", "```\n", "~~~\n", "> ```\n", "#", "# a\n", "    a\n", " ", "\t",
    " \n", "a\n", "a  \n", "a\\\n", "a\n---\n", "|", "|a", "|\n", "|a|\n|-|\n|b|\n\n", "a|b\n", "|-|\n", "a|a\n-|-\n",
    "a\n-|-\n", "<", "<!--", "&amp;", "!", "http://a ", "(", "$a_b^c$ ", r"\(x\) ", r"$\sqrt[ $ ", r"$\left( $",
    r"$\begin{array}{c} a & b $ ", "$$" + "a" * 1990 + "$$\n", "a\r\n", "\0", "\N{GRINNING FACE}", '"', "- \\(\n",
    "> \\[ ", ">\n-\n",
]  # fmt: skip
MADE = {
    "one formula of operators": "$1" + "+" * SIZE,
    "one formula of digits": "$1" + "1+" * (SIZE // 2),
    "wide table": "|a" * (SIZE // 6) + "|\n" + "|-" * (SIZE // 6) + "|\n" + "|\n" * (SIZE // 6),
    "wide table of short rows": "|a" * 5000 + "|\n" + "|-" * 5000 + "|\n" + "a\n" * 12_000,
    "tall table": "|a|b|\n|-|-|\n" + "|c|d|\n" * (SIZE // 6),
    "growing ticks": "".join("`" * count + " " for count in range(1, 340)),
    "nested list": "\n".join("  " * count + "- a" for count in range(240)),
    "nested quotes": "\n".join(">" * count + " a" for count in range(1, 340)),
    "lazy quote": ">" * 40 + " a\n" + "b\n" * (SIZE // 2),
    "lazy list": "- " * 25 + "a\n" + "b\n" * (SIZE // 2),
    "nested brackets": "[" * (SIZE // 2) + "]" * (SIZE // 2),
    "nested links": "[" * (SIZE // 8) + "](a)" * (SIZE // 8),
    "one address": "[a](" + "(" * SIZE,
    "one address of escapes": "[a](" + "\\(" * (SIZE // 2),
    "one pointed address": "[a](<" + "a" * SIZE,
    "blank lines": "* " + "\n" * SIZE,
    "blank lines with spaces": " \n" * (SIZE // 2) + "*a*",
    "spaces": "*a*" + " " * SIZE + "b",
    "braces": "$$" + "{" * 900 + "}" * 900 + "$$",
}


@pytest.mark.parametrize("text", [*REPEATED, *MADE])
def test_no_text_takes_long(text: str) -> None:
    whole = MADE.get(text) or text * (SIZE // len(text) + 1)
    begun = time.process_time()
    formatted(whole[:SIZE])
    assert time.process_time() - begun < 2.0  # on a busy machine; the slowest took 0.5 s, and a minute before


def test_what_is_too_much_is_shown_as_written_with_a_note() -> None:
    for text in ("- a\n" * 15_000, "*a* " * 20_000, "<b>" + "- \\(\n" * 12_000):
        shown = formatted(text)
        assert shown is not None and "Shown as it was written" in shown
        assert "<b>" not in shown and text.count("\n") <= shown.count("\n")
    assert formatted("plain words " * 10_000) is None


def test_the_same_text_always_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "- a\n" * 200
    assert "<li" in str(formatted(text))
    monkeypatch.setattr(markdown, "MAX_STEPS", 100)
    assert "<li" not in str(formatted(text))


def test_a_long_reply_is_drawn() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")[: SIZE // 2]
    assert "rendered-heading" in str(formatted(page))
    rows = "|a|b|c|\n|-|-|-|\n" + "|1|2|3|\n" * 500
    assert str(formatted(rows)).count("<tr>") == 501


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        (r"\(x\)", True), (r"\[x\]", True), ("$$x$$", True), ("$x$", True), ("$x^2$ and $y$", True), ("$2^n$", True),
        ("$$x\ny$$", True), ("$5 and $6", False), ("$ x $", False), ("$x $", False), ("$x\ny$", False), ("$20$", False),
        (r"\(x", False), ("$$x", False), ("$x$y", False), ("$x$1", False), (r"$x\$", False), (r"\[\]", False),
        ("$$$$", False), (r"\(a\) \(", True), ("*a* [b $c](d) $x$", True),
    ],
)  # fmt: skip
def test_formulas_are_found_as_before(text: str, drawn: bool) -> None:
    assert ("<math" in str(formatted(text))) is drawn
