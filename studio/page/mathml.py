"""TeX formulas as MathML, which browsers draw by themselves: no script, no font, nothing fetched.

The part of TeX that replies use is read: scripts, fractions, roots, Greek, operators, fences, text, matrices.
Whatever is not known refuses the whole formula (``None``), and the page shows its source instead: half a formula
would be read as another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from studio.page.html import Html, element

MAX_CHARACTERS = 2000
_MAX_DEPTH = 24
_TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|[{}^_&]|\d+(?:\.\d+)?|\s+|.", re.DOTALL)


def _named(names: str, signs: str = "") -> dict[str, str]:
    """Each of the words, with the sign at its place; without signs, with itself."""
    words = names.split()
    return dict(zip(words, signs or words, strict=True))


_LETTERS = _named(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar partial infty "
    "nabla emptyset varnothing Re Im aleph angle",
    "αβγδϵεζηθϑικλμνξπρστυϕφχψωΓΔΘΛΞΠΣΦΨΩℓℏ∂∞∇∅∅ℜℑℵ∠",
)
_OPERATORS = _named(
    "times cdot div pm mp ast star circ leq le geq ge neq ne approx equiv sim simeq cong propto ll gg in notin ni "
    "subset supset subseteq supseteq cup cap setminus land lor wedge vee neg lnot forall exists to rightarrow "
    "leftarrow leftrightarrow Rightarrow Leftarrow Leftrightarrow implies iff mapsto mid parallel perp cdots ldots "
    "dots vdots ddots oplus otimes prime colon langle rangle lfloor rfloor lceil rceil lbrace rbrace lbrack rbrack "
    "vert Vert",
    "×⋅÷±∓∗⋆∘≤≤≥≥≠≠≈≡∼≃≅∝≪≫∈∉∋⊂⊃⊆⊇∪∩∖∧∨∧∨¬¬∀∃→→←↔⇒⇐⇔⇒⇔↦∣∥⊥⋯……⋮⋱⊕⊗′:⟨⟩⌊⌋⌈⌉{}[]|‖",
)
_LARGE = _named(
    "sum prod int iint oint bigcup bigcap coprod",
    "∑∏∫∬∮⋃⋂∐",
)  # drawn large, with limits
_FUNCTIONS = set(
    _named("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp det dim ker deg gcd")
)
_LIMITED = set(_named("lim max min sup inf arg argmax argmin Pr"))
_ACCENTS = {"hat": "^", "bar": "¯", "overline": "¯", "vec": "→", "tilde": "~", "dot": "˙", "ddot": "¨", "widehat": "^"}
_STYLES = {
    "mathbf": "bold",
    "mathbb": "double-struck",
    "mathcal": "script",
    "mathfrak": "fraktur",
    "boldsymbol": "bold",
}
_UPRIGHT = {"text", "mathrm", "textrm", "textbf", "textit", "operatorname", "mbox", "mathsf", "mathtt", "texttt"}
_SPACES = {"\\,": ".17em", "\\:": ".22em", "\\;": ".28em", "\\quad": "1em", "\\qquad": "2em", "\\ ": ".3em", "\\!": "0"}
_FENCED = {"matrix": "", "pmatrix": "()", "bmatrix": "[]", "vmatrix": "||", "Bmatrix": "{}", "cases": "{"}
_ALIGNED = {"aligned", "align", "align*", "gathered", "split", "array"}
_DOUBLE_STRUCK = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
_IGNORED = {"\\displaystyle", "\\textstyle", "\\limits", "\\nolimits", "\\left.", "\\right."}


def formula(source: str, *, display: bool) -> Html | None:
    """A formula as MathML, or None when it says something that is not known here; ``display`` sets it apart."""
    if not source.strip() or len(source) > MAX_CHARACTERS:
        return None
    try:
        reader = _Reader(_TOKEN.findall(source))
        rows = reader.row(lambda token: False)
    except (_Unknown, IndexError, RecursionError):
        return None
    return element("math", element("mrow", *rows), display="block" if display else None, class_="formula")


class _Unknown(Exception):
    """Something outside the part of TeX that is read."""


class _Reader:
    """Reads tokens from the left; each method takes what belongs to it and gives the elements it makes."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def row(self, ends: Callable[[str], bool]) -> list[Html]:
        """Elements up to a token that ends the row, which is left to the caller."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _Unknown
        made: list[Html] = []
        while self.at < len(self.tokens) and not ends(self.tokens[self.at]):
            if self.tokens[self.at].isspace():
                self.at += 1
                continue
            made.append(self.scripted())
        self.depth -= 1
        return made

    def scripted(self) -> Html:
        """One atom with its sub- and superscript."""
        token = self.tokens[self.at]
        base = self.atom()
        below = above = None
        while self.peek() in ("_", "^") or self.peek() == "'":
            mark = self.take()
            if mark == "'":
                above = element("mo", "′")
            elif mark == "_" and below is None:
                below = self.argument()
            elif mark == "^" and above is None:
                above = self.argument()
            else:
                raise _Unknown
        over = token[1:] in _LIMITED or (token[1:] in _LARGE and "int" not in token)
        if below is not None and above is not None:
            return element("munderover" if over else "msubsup", base, below, above)
        if below is not None:
            return element("munder" if over else "msub", base, below)
        if above is not None:
            return element("mover" if over else "msup", base, above)
        return base

    def argument(self) -> Html:
        """A group in braces, or the one atom that stands there."""
        while self.peek().isspace():
            self.at += 1
        return self.atom()

    def atom(self) -> Html:
        """One letter, number, operator, group or command."""
        token = self.take()
        if token == "{":
            made = self.row(lambda end: end == "}")
            self.expect("}")
            return element("mrow", *made)
        if token.startswith("\\"):
            return self.command(token)
        if token in "}^_&#%~" or token == "$":
            raise _Unknown
        if token[0].isdigit():
            return element("mn", token)
        if token.isalpha():
            return element("mi", token)
        return element("mo", {"-": "−", "*": "∗", "'": "′"}.get(token, token))

    def command(self, token: str) -> Html:
        name = token[1:]
        if name in _LETTERS:
            return element("mi", _LETTERS[name])
        if name in _OPERATORS:
            return element("mo", _OPERATORS[name])
        if name in _LARGE:
            return element("mo", _LARGE[name], largeop=True)
        if name in _FUNCTIONS or name in _LIMITED:
            return element("mi", name)
        if token in _SPACES:
            return element("mspace", width=_SPACES[token])
        if token in _IGNORED:
            return element("mrow")
        if name in "{}%#_&|":
            return element("mo", {"|": "‖"}.get(name, name))
        return self.structure(name)

    def structure(self, name: str) -> Html:
        """A command with arguments."""
        if name in ("frac", "dfrac", "tfrac"):
            return element("mfrac", self.argument(), self.argument())
        if name == "binom":
            pair = element("mfrac", self.argument(), self.argument(), linethickness="0")
            return element("mrow", element("mo", "("), pair, element("mo", ")"))
        if name == "sqrt":
            return self.root()
        if name in _ACCENTS:
            return element("mover", self.argument(), element("mo", _ACCENTS[name]), accent="true")
        if name in _STYLES:
            return self.styled(_STYLES[name])
        if name in _UPRIGHT:
            return element("mtext", self.literal())
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.environment(self.literal())
        raise _Unknown

    def root(self) -> Html:
        if self.peek() != "[":
            return element("msqrt", self.argument())
        self.take()
        degree = self.row(lambda end: end == "]")
        self.expect("]")
        return element("mroot", self.argument(), element("mrow", *degree))

    def styled(self, variant: str) -> Html:
        text = self.literal()
        if variant == "double-struck":
            text = "".join(_DOUBLE_STRUCK.get(letter, letter) for letter in text)
        return element("mi", text, class_=f"math-{variant}", mathvariant="normal")

    def fenced(self) -> Html:
        opening = self.delimiter()
        made = self.row(lambda end: end == "\\right")
        self.expect("\\right")
        return element("mrow", opening, *made, self.delimiter())

    def delimiter(self) -> Html:
        token = self.take()
        shown = _OPERATORS.get(token[1:], token[1:]) if token.startswith("\\") else token
        if shown == ".":
            return element("mrow")
        if len(shown) != 1 or shown.isalnum():
            raise _Unknown
        return element("mo", shown, stretchy="true")

    def environment(self, name: str) -> Html:
        if name not in _FENCED and name not in _ALIGNED:
            raise _Unknown
        if name == "array":
            self.literal()
        rows: list[list[Html]] = [[]]
        while True:
            cell = self.row(lambda end: end in ("&", "\\\\", "\\end"))
            rows[-1].append(element("mtd", *cell))
            mark = self.take()
            if mark == "\\end":
                break
            if mark == "\\\\":
                rows.append([])
        if self.literal() != name:
            raise _Unknown
        table = element("mtable", *(element("mtr", *row) for row in rows), class_=f"math-{name.rstrip('*')}")
        fences = [element("mo", fence, stretchy="true") for fence in _FENCED.get(name, "")]
        return element("mrow", *fences[:1], table, *fences[1:])

    def literal(self) -> str:
        """The plain text of a group in braces."""
        while self.peek().isspace():
            self.at += 1
        self.expect("{")
        taken = []
        while self.peek() != "}":
            token = self.take()
            if token.startswith("\\") or token in "{$":
                raise _Unknown
            taken.append(token)
        self.expect("}")
        return "".join(taken)

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, token: str) -> None:
        if self.peek() != token:
            raise _Unknown
        self.at += 1
