"""A base with a chat template that its user chose: a directory of its own, in which the weights are links.

The template belongs to the base from then on, so that every run, resume, checkpoint and export reads the same one. The
original is not changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedback.errors import InvalidInput, NotFound
from training.bundled import models_directory
from training.checkpoints.base_check import WEIGHTS
from training.checkpoints.hashing import describe_base
from training.checkpoints.registration import policy_name
from training.conversion.cache import RECORD, Report, made_once
from training.models.base_files import TEMPLATE, at_hand_first, fetched_directory
from training.models.chat import examine_template
from training.models.chat_template import fix_template_date
from training.plain_templates import PLAIN_TEMPLATES

TEMPLATE_FILE = "chat_template.jinja"
_PLACE = re.compile(rf"{TEMPLATE}-([0-9a-f]{{16}})(?:-[0-9a-f]{{8}})?")
_TEXT = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.md", "LICENSE*")


def with_template(base: str, chosen: str, report: Report) -> Path:
    """The directory of a base with a chat template, by its name (``PLAIN_TEMPLATES``) or from a file.

    Made once for the same base, tokenizer and template. Raises InvalidInput for a name that is not known, a file that
    cannot be read, and a template that does not suit the tokenizer.
    """
    directory = fetched_directory(base)
    source = _source_of(chosen)
    _check_suits(base, directory, chosen, source)
    base_hash = describe_base(base)
    digest = hashlib.sha256(f"{base_hash}\n{source}".encode()).hexdigest()
    files = sorted({path for pattern in _TEXT for path in directory.glob(pattern) if path.is_file()})
    place = models_directory() / f"{TEMPLATE}-{digest[:16]}-{_hash_of(files)[:8]}" / policy_name(base)

    def make(partial: Path) -> None:
        for path in files:
            shutil.copyfile(path, partial / path.name)
        for path in sorted({path for pattern in WEIGHTS for path in directory.glob(pattern)}):
            _link(path.resolve(), partial / path.name)
        _set_template(partial, source)
        record = {"base": base, "base_hash": base_hash, "chat_template": chosen, "digest": digest}
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    return made_once(place, make, report)


def template_name(directory: Path) -> str | None:
    """The name or file of the template that was chosen for a base in this directory; None where none was."""
    return _recorded(directory, "chat_template")


def is_template_place(base: str) -> bool:
    """Whether a base is named by a directory that ``with_template`` made, wherever that lay."""
    return _PLACE.fullmatch(Path(base).parent.name) is not None


def has_same_template(base: str, directory: Path) -> bool:
    """Whether this directory has the weights and the template of a base that ``is_template_place``, by their hash."""
    made = _PLACE.fullmatch(Path(base).parent.name)
    digest = _recorded(directory, "digest")
    return made is not None and digest is not None and digest.startswith(made[1])


def _recorded(directory: Path, key: str) -> str | None:
    try:
        found = json.loads((directory / RECORD).read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return str(found) if found else None


def _hash_of(files: Sequence[Path]) -> str:
    """SHA-256 over the names and bytes of small files, but of the one that says what a directory was made of."""
    digest = hashlib.sha256()
    for path in files:
        if path.name != RECORD:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return digest.hexdigest()


def _source_of(chosen: str) -> str:
    if chosen in PLAIN_TEMPLATES:
        return PLAIN_TEMPLATES[chosen].source
    path = Path(chosen).expanduser()
    if not path.is_file():
        raise NotFound("chat template", chosen, sorted(PLAIN_TEMPLATES), "Or give a file with a Jinja template.")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The chat template {path} cannot be read as UTF-8 text: {error}.") from error


def _set_template(directory: Path, source: str) -> None:
    """Write the template as the only one; transformers reads it from either of these two files."""
    (directory / TEMPLATE_FILE).write_text(source, encoding="utf-8")
    path = directory / "tokenizer_config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config.pop("chat_template", None)
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_suits(base: str, directory: Path, chosen: str, source: str) -> None:
    """Refuse a template that cannot hold a conversation with the base's tokenizer."""
    from transformers import AutoTokenizer

    def load(_offline: bool) -> Any:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)

    tokenizer = at_hand_first(load, base, directory)
    plain = PLAIN_TEMPLATES.get(chosen)
    missing = [token for token in plain.needs if token not in tokenizer.get_vocab()] if plain is not None else []
    if missing:
        others = ", ".join(name for name, one in PLAIN_TEMPLATES.items() if not one.needs)
        raise InvalidInput(
            f"The chat template {chosen!r} needs the tokens {' and '.join(missing)}, which the tokenizer of {base!r} "
            f"does not have: it would write them as text, and no reply could end. Choose {others}, or a file."
        )
    if tokenizer.eos_token is None:
        raise InvalidInput(
            f"The tokenizer of {base!r} names no end token, so no reply could end. Choose another model."
        )
    tokenizer.chat_template = source
    fix_template_date(tokenizer)
    examine_template(tokenizer)


def _link(source: Path, target: Path) -> None:
    """One file under a second name: a hard link, which outlives a move of the original, else a symbolic one."""
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)
