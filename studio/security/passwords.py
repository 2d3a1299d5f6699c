"""Passwords: the rules for new ones, and their hashes.

A password is kept as scrypt (RFC 7914) with a salt of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

from feedback.errors import InvalidInput

MIN_PASSWORD, MAX_PASSWORD = 10, 200

# 32 MiB and about a tenth of a second per guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 1


def check_password_rules(password: str, name: str = "") -> str:
    """The password, if it is one that may be set; InvalidInput says what is missing."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidInput(
            f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters, not {len(password)}; "
            "a few plain words do well."
        )
    if len(set(password)) < 4 or password.lower() in {name.lower(), "passwordpassword", "1234567890"}:
        raise InvalidInput("This password would be guessed at once; take one with more different characters.")
    return password


def hash_password(password: str) -> str:
    """A password as it may be kept: ``scrypt$n$r$p$salt$hash``."""
    salt = secrets.token_bytes(16)
    return "$".join(["scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _text(salt), _text(_scrypt(password, salt))])


def password_matches(password: str, kept: str | None) -> bool:
    """Whether a password is the kept one. Without one it takes as long and is False: nobody learns who exists."""
    _, cost, block, parallel, salt, expected = (kept or _NOBODY).split("$")
    found = _scrypt(password[:MAX_PASSWORD], b64decode(salt), int(cost), int(block), int(parallel))
    return hmac.compare_digest(found, b64decode(expected)) and kept is not None


def new_password() -> str:
    """Four groups of five letters and digits that are told apart when read aloud: 98 bits."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(5)) for _ in range(4))


def _scrypt(password: str, salt: bytes, cost: int = _COST, block: int = _BLOCK, parallel: int = _PARALLEL) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"), salt=salt, n=cost, r=block, p=parallel,
        maxmem=256 * cost * block, dklen=32,
    )  # fmt: skip


def _text(data: bytes) -> str:
    return b64encode(data).decode()


_NOBODY = "$".join(["scrypt", str(_COST), str(_BLOCK), str(_PARALLEL), _text(bytes(16)), _text(bytes(32))])
