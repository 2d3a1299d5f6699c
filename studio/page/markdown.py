"""A reply's markdown, code and formulas as safe markup, drawn from an allow-list by construction.

The text is parsed, and each piece that is known becomes an element made by ``studio.page.html``; nothing of the text is
ever taken over as markup, and raw HTML in it is text. Links are shown with their address and cannot be followed, and
pictures are named and not loaded: a click or a load would tell a stranger who judges what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_inline import StateInline, image, link
from markdown_it.token import Token

from studio.page.html import Html, element, join, plain_text
from studio.page.mathml import formula

MAX_CHARACTERS = 60_000
_MAX_NESTING = 30

MAX_STEPS = 20_000
"""Pieces that the parser looks at before a text counts as too much to draw; a long reply has some hundreds."""

MAX_LINK, LINK_STEPS = 2_000, 20
"""Characters of a link, its words and address, and the steps that it counts for."""

MAX_CELLS = 5_000
"""Cells of a table, those counted in that short rows leave out."""

# Delimiters of a formula and whether it stands apart.
_FORMULAS = [("$$", "$$", True), ("\\[", "\\]", True), ("\\(", "\\)", False)]
_RULER = re.compile(r"[-:|\s>]*")
_OPERATOR = re.compile(r"[\\^_=+*/]")
_NOTE = "Shown as it was written: it has more formatting than can be drawn here."
_BLOCKS = {
    "blockquote": "blockquote",
    "bullet_list": "ul",
    "ordered_list": "ol",
    "list_item": "li",
    "paragraph": "p",
    "table": "table",
    "thead": "thead",
    "tbody": "tbody",
    "tr": "tr",
    "th": "th",
    "td": "td",
}
_INLINE = {"strong": "strong", "em": "em", "s": "del"}


def formatted(text: str) -> Html | None:
    """The text as it is meant to look, or None when it is plain and shows best as it stands.

    What is long or has so much formatting that it would take long to draw is shown as it stands, with a note. The
    work is bounded by counting steps and not by a clock, so that the same text always looks the same.
    """
    if not _may_be_formatted(text):
        return None
    if len(text) > MAX_CHARACTERS:
        return _as_written(text)
    try:
        tokens = _PARSER.parse(text, {})
    except _TooMuch:
        return _as_written(text)
    if all(_is_plain(token) for token in tokens):
        return None
    made, _ = _blocks(tokens, 0, None)
    return element("div", *made, class_="rendered")


def _as_written(text: str) -> Html:
    return element("div", element("p", _NOTE, class_="format-note"), plain_text(text))


class _TooMuch(Exception):
    """A text that would take too long to parse."""


def _count_step(state: StateInline | StateBlock, *_: object, steps: int = 1) -> bool:
    """A rule that never matches: it stands before all others, and so counts what they are asked for."""
    taken = state.env["steps"] = state.env.get("steps", 0) + steps
    if taken > MAX_STEPS:
        raise _TooMuch
    return False


def _bounded_link(rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    """A rule for links or pictures that looks no further than one is long; it may look at all of that each time."""

    def bounded(state: StateInline, silent: bool) -> bool:
        if state.src[state.pos] not in "[!":
            return False
        _count_step(state, steps=LINK_STEPS)
        end, state.posMax = state.posMax, min(state.posMax, state.pos + MAX_LINK)
        try:
            return rule(state, silent)
        finally:
            state.posMax = end

    return bounded


def _bounded_table(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The rule for tables, unless the table would have too many cells."""
    if start + 2 > end:
        return False
    ruler = state.src[state.bMarks[start + 1] : state.eMarks[start + 1]]
    if "-" not in ruler or not _RULER.fullmatch(ruler):
        return False
    columns = ruler.count("|") + 1
    most = MAX_CELLS // columns
    rows = next((line - start for line in range(start, min(end, start + most + 1)) if state.isEmpty(line)), most + 1)
    _count_step(state, steps=1 + min(rows, end - start) // 50)
    if min(rows, end - start) > most and table(state, start, end, True):
        raise _TooMuch
    return table(state, start, end, silent)


def _formula_rule(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    found = _delimited(state) or _inline_dollars(state)
    if found is None:
        return False
    begin, end, after, display = found
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup = state.src[begin:end], state.src[state.pos : after]
        token.meta = {"display": display}
    state.pos = after
    return True


def _delimited(state: StateInline) -> tuple[int, int, int, bool] | None:
    """A formula between delimiters of two characters: its begin and end, what follows, and whether it stands apart."""
    for opening, closing, display in _FORMULAS:
        if not state.src.startswith(opening, state.pos):
            continue
        begin = state.pos + 2
        end = _find(state, closing, begin + 1)
        return None if end < 0 else (begin, end, end + 2, display)
    return None


def _inline_dollars(state: StateInline) -> tuple[int, int, int, bool] | None:
    """A formula between single dollars, which hug what they enclose, so that prices stay prices."""
    begin = state.pos + 1
    if state.src[state.pos] != "$" or begin >= state.posMax or state.src[begin] in " \t\n$":
        return None
    end = _find(state, "$", begin)
    if end < 0:
        return None
    inner, following = state.src[begin:end], state.src[end + 1 : end + 2]
    if "\n" in inner or inner[-1].isspace() or inner[-1] == "\\" or following.isdigit() or _is_word(following):
        return None
    if inner[0].isspace() or (inner[0].isdigit() and not _OPERATOR.search(inner[1:-1])):
        return None
    return begin, end, end + 1, False


def _is_word(sign: str) -> bool:
    return sign.isalnum() or sign == "_"


def _find(state: StateInline, sign: str, at: int) -> int:
    """Where ``sign`` comes next, or -1. Each text is searched once for what does not come any more."""
    found = state.env.setdefault("found", {})
    source, last, place = found.get(sign, ("", 0, -1))
    if source is not state.src or not (last <= at <= place or (place < 0 and last <= at)):
        place = state.src.find(sign, at)
        found[sign] = (state.src, at, place)
    return int(place)


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline", "entity", "autolink", "reference", "lheading"])
    parser.inline.ruler.before("escape", "formula", _formula_rule)
    parser.inline.ruler.before("text", "steps", _count_step)
    parser.inline.ruler.at("link", _bounded_link(link))
    parser.inline.ruler.at("image", _bounded_link(image))
    everywhere: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    parser.block.ruler.at("table", _bounded_table, {"alt": ["paragraph", "reference"]})
    parser.block.ruler.before("table", "steps", _count_step, everywhere)
    return parser


_PARSER = _parser()


def _may_be_formatted(text: str) -> bool:
    return bool(
        re.search(
            r"[`*_~#>$|\\\[]|^[^\S\n]*(?:[-+]|\d+[.)])\s|^(?: {4}|\t)\S|^[^\S\n]*-{3,}[^\S\n]*$", text, re.MULTILINE
        )
    )


def _is_plain(token: Token) -> bool:
    if token.type == "inline":
        return all(child.type in ("text", "softbreak") for child in token.children or ())
    return token.type in ("paragraph_open", "paragraph_close")


def _blocks(tokens: Sequence[Token], at: int, end: str | None) -> tuple[list[Html], int]:
    """Elements from ``at`` up to the token of type ``end``, and where that stands."""
    made: list[Html] = []
    while at < len(tokens) and tokens[at].type != end:
        token = tokens[at]
        name = token.type.removesuffix("_open")
        if token.type.endswith("_open"):
            children, at = _blocks(tokens, at + 1, f"{name}_close")
            made.append(_block(name, token, children))
        elif token.type == "inline":
            children = list(_inline(token.children or []))
            made.extend(children)
        elif token.type in ("fence", "code_block"):
            made.append(_code(token))
        elif token.type == "hr":
            made.append(element("p", "* * *", class_="rule", aria_hidden="true"))
        else:
            made.append(element("p", token.content))
        at += 1
    return made, at


def _block(name: str, token: Token, children: list[Html]) -> Html:
    if name == "heading":
        # The reply's own headings stand below the card's.
        return element("p", *children, class_="rendered-heading", role="heading", aria_level=4, dir="auto")
    if name == "paragraph" and token.hidden:
        return join(children)
    start = dict(token.attrs).get("start") if name == "ordered_list" else None
    direction = "auto" if name in ("paragraph", "list_item", "td", "th") else None
    made = element(_BLOCKS[name], *children, start=start, dir=direction)
    if name == "table":
        return element("div", made, class_="rendered-table", tabindex=0, role="group", aria_label="Table")
    return made


def _code(token: Token) -> Html:
    language = token.info.strip().split(" ")[0][:30] if token.info else ""
    label = element("span", language, class_="code-language") if language else ""
    code = element("code", token.content.rstrip("\n"))
    pre = element("pre", code, tabindex=0, role="group", aria_label=f"Code {language}".strip(), dir="ltr")
    return element("div", label, pre, class_="code-block")


def _inline(tokens: Sequence[Token]) -> Iterator[Html]:
    made: list[list[object]] = [[]]
    opened: list[Token] = []
    for token in tokens:
        if token.type.endswith("_open"):
            opened.append(token)
            made.append([])
        elif token.type.endswith("_close"):
            inner = join(made.pop())
            made[-1].append(_wrapped(opened.pop(), inner))
        else:
            made[-1].append(_leaf(token))
    yield join(made[0])


def _wrapped(token: Token, inner: Html) -> Html:
    name = token.type.removesuffix("_open")
    if name == "link":
        return join([element("span", inner, class_="link-text"), _address(str(dict(token.attrs).get("href", "")))])
    return element(_INLINE.get(name, "span"), inner)


def _leaf(token: Token) -> object:
    if token.type == "formula":
        drawn = formula(token.content, display=bool(token.meta["display"]))
        return drawn if drawn is not None else element("code", token.markup, class_="formula-source")
    if token.type == "code_inline":
        return element("code", token.content, dir="ltr")
    if token.type == "image":
        named = element("span", f"[picture: {token.content or 'without a name'}]", class_="picture")
        return join([named, _address(str(dict(token.attrs).get("src", "")))])
    if token.type == "hardbreak":
        return Html("<br>")
    return "\n" if token.type == "softbreak" else token.content


def _address(target: str) -> Html:
    return element("span", f" ({target})", class_="link-address") if target else Html("")
