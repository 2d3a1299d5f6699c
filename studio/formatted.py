"""A reply's markdown, code and formulas as safe markup, drawn from an allow-list by construction.

The text is parsed, and each piece that is known becomes an element made by ``studio.markup``; nothing of the text is
ever taken over as markup, and raw HTML in it is text. Links are shown with their address and cannot be followed, and
pictures are named and not loaded: a click or a load would tell a stranger who judges what.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from studio.formula import formula
from studio.markup import Html, element, join

MAX_CHARACTERS = 60_000
_MAX_NESTING = 30

# Delimiters of a formula and whether it stands apart. A lone $ must hug what it encloses, so that prices stay prices.
_FORMULAS = [
    (re.compile(r"\$\$(.+?)\$\$", re.DOTALL), True),
    (re.compile(r"\\\[(.+?)\\\]", re.DOTALL), True),
    (re.compile(r"\\\((.+?)\\\)", re.DOTALL), False),
    (re.compile(r"\$(?![\s$\d])([^$\n]*?[^\s\\$])\$(?![\d\w])"), False),
    (re.compile(r"\$(\d[^$\n]*[\\^_=+*/][^$\n]*?[^\s\\$])\$(?![\d\w])"), False),
]
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
    """The text as it is meant to look, or None when it is plain and shows best as it stands."""
    if len(text) > MAX_CHARACTERS or not _may_be_formatted(text):
        return None
    tokens = _PARSER.parse(text)
    if all(_is_plain(token) for token in tokens):
        return None
    made, _ = _blocks(tokens, 0, None)
    return element("div", *made, class_="rendered")


def _formula_rule(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    for pattern, display in _FORMULAS:
        found = pattern.match(state.src, state.pos)
        if found is None:
            continue
        if not silent:
            token = state.push("formula", "", 0)
            token.content, token.markup = found.group(1), found.group(0)
            token.meta = {"display": display}
        state.pos = found.end()
        return True
    return False


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    parser.disable(["html_block", "html_inline", "entity", "autolink", "reference", "lheading"])
    parser.inline.ruler.before("escape", "formula", _formula_rule)
    return parser


_PARSER = _parser()


def _may_be_formatted(text: str) -> bool:
    return bool(
        re.search(r"[`*_~#>$|\\\[]|^\s*(?:[-+]|\d+[.)])\s|^(?: {4}|\t)\S|^\s*(?:-{3,})\s*$", text, re.MULTILINE)
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
