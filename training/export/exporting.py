"""Export a policy: the one entry of this room. Written beside its place, checked, then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.errors import CheckpointError, Conflict, InvalidInput
from training.export.origin import Origin, find_origin, provenance, write_provenance

if TYPE_CHECKING:
    from feedback.database.engine import Database
    from training.export.hub import HubApi
    from training.export.parity import GreedyReply
    from training.home import Home
    from training.models.loading import LoadedPolicy

Say = Callable[[str], None]


class Form(StrEnum):
    """What a policy can be exported as."""

    adapter = "adapter"
    merged = "merged"
    gguf = "gguf"
    hub = "hub"


@dataclass(frozen=True)
class Request:
    """What to export, and where to.

    ``out`` is a directory, or USER/REPO for the Hub. ``prompts`` says on how many prompts policy and export are
    compared. ``contents`` is what a Hub repository holds. ``public`` lets everybody read that.
    """

    form: Form
    out: str
    quantization: str = "f16"
    prompts: int = 8
    contents: Form = Form.merged
    public: bool = False

    @property
    def written(self) -> Form:
        """The form of the files, wherever they go."""
        return self.contents if self.form is Form.hub else self.form


@dataclass(frozen=True)
class Exported:
    """Where an export went, its form, its files, and how it was checked: figures, and the same in sentences."""

    place: str
    form: str
    files: tuple[str, ...]
    figures: dict[str, Any]
    checks: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The result as plain JSON."""
        return {"place": self.place, "form": self.form, "files": list(self.files), "checks": self.figures}


@dataclass
class _Work:
    """An export under way: the policy, its greedy replies, and the checks that were passed.

    ``policy`` is None once its weights are not needed any more: the export is loaded beside it, in as much memory.
    ``ends`` are the tokens that end a reply, ``banned`` the control tokens that the studio never draws.
    """

    request: Request
    origin: Origin
    policy: LoadedPolicy | None
    tokenizer: Any
    config: Any
    replies: list[GreedyReply]
    ends: list[int]
    banned: list[int]
    say: Say
    figures: dict[str, Any] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)

    def merged(self) -> Any:
        """The merged model; it takes over the policy's weights, and the policy is dropped."""
        from training.export.merging import merge

        assert self.policy is not None
        policy, self.policy = self.policy, None
        return merge(policy)

    def passed(self, sentence: str, **figures: Any) -> None:
        """Note a check that was passed, and tell it."""
        self.checks.append(sentence)
        self.figures.update(figures)
        self.say(sentence)


def export_policy(
    db: Database, home: Home, key: str, request: Request, say: Say = lambda line: None, api: HubApi | None = None
) -> Exported:
    """Export the policy with this id or name; at ``out`` there is all of it, or nothing.

    Args:
        db: The home's database.
        home: Where the checkpoints lie.
        key: Id or name of the policy.
        request: The form and the place.
        say: Receives a message for each step and each check.
        api: The Hub. Default: the Hugging Face Hub with the login of this account.

    Raises:
        InvalidInput: The place, the form or the model cannot be had so; the message says what can.
        NotFound: There is no such policy, or its base is gone.
        Conflict: The policy's weights are not here, or the repository is public and was not asked to be.
        CheckpointError: The export would not reply as the policy does, or cannot be written.
        Unavailable: The Hub cannot be reached.
    """
    from training.checkpoints.atomic_directory import atomic_directory
    from training.checkpoints.saving import is_disk_full

    origin = find_origin(db, home, key)
    _refuse(origin, request)
    final = home.exports if request.form is Form.hub else _free_place(request.out)
    try:
        if request.form is Form.hub:
            return _to_hub(db, home, origin, request, say, api)
        with atomic_directory(final, replace=False) as partial:
            figures, checks = _write(db, home, origin, request, partial, say)
    except (OSError, RuntimeError) as error:
        if is_disk_full(error):
            raise CheckpointError(
                f"The export could not be written: the disk of {final.parent} is full. Free some space, or export to "
                "a directory on another disk with --out."
            ) from error
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise Conflict(
                f"Something was put at {request.out} while the export was made. It was left as it is, and nothing was "
                "exported. Name another directory with --out."
            ) from error
        if isinstance(error, OSError) and str(error.filename).startswith(str(final.parent)):
            raise InvalidInput(f"{request.out} cannot be written: {error.strerror}. Name another directory.") from error
        raise
    return Exported(str(final), request.written.value, _files(final), figures, tuple(checks))


def _refuse(origin: Origin, request: Request) -> None:
    """Refuse what cannot be exported so, by what is known without the weights."""
    from training.export.adapter import refuse_bare_base
    from training.export.gguf_file import refuse_unwritable
    from training.export.merging import refuse_unmergeable

    if request.contents is Form.hub:
        raise InvalidInput("A repository cannot hold 'hub'. Valid contents: adapter, merged, gguf.")
    if request.prompts < 1:
        raise InvalidInput(f"prompts must be 1 or more, not {request.prompts}: an export is always checked.")
    for option, is_idle in {
        "--quantization": request.written is not Form.gguf and request.quantization != Request.quantization,
        "--contents": request.form is not Form.hub and request.contents is not Request.contents,
        "--public": request.form is not Form.hub and request.public,
    }.items():
        if is_idle:
            raise InvalidInput(f"{option} does not apply to an export as {request.form}. Leave it out.")
    if request.written is Form.adapter:
        refuse_bare_base(origin)
        return
    refuse_unmergeable(origin)
    if request.written is Form.gguf:
        from transformers import AutoConfig

        from training.models.base_files import base_directory

        directory = base_directory(origin.policy.base)
        refuse_unwritable(AutoConfig.from_pretrained(directory, local_files_only=True), request.quantization)


def _free_place(out: str) -> Path:
    """The directory to write; InvalidInput or Conflict if it cannot be created or replaced."""
    final = Path(os.path.abspath(os.path.expanduser(out)))
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        raise InvalidInput(f"{out} is not a directory. Name one that is empty or not there yet with --out.")
    if final.is_dir() and any(final.iterdir()):
        raise Conflict(f"{out} is not empty, and nothing in it is overwritten. Name another directory with --out.")
    # A rename over a mount point fails; over the working directory it leaves the shell in a deleted one
    if final == Path.cwd() or os.path.ismount(final):
        raise InvalidInput(
            f"{str(final)!r} cannot be replaced as a whole; name a new directory in it: `--out {final}/NAME`."
        )
    return final


def _to_hub(db: Database, home: Home, origin: Origin, request: Request, say: Say, api: HubApi | None) -> Exported:
    from training.export.hub import check_can_push, open_hub, push

    api = api or open_hub()
    check_can_push(api, request.out, public=request.public)
    home.exports.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.exports, prefix=".hub-") as temporary:
        directory = Path(temporary)
        figures, checks = _write(db, home, origin, request, directory, say)
        say(f"pushing {len(_files(directory))} files to {request.out}, {'public' if request.public else 'private'}")
        message = f"{origin.policy.name}: {request.written.value}"
        address = push(api, directory, request.out, public=request.public, message=message)
        return Exported(address, request.written.value, _files(directory), figures, tuple(checks))


def _write(
    db: Database, home: Home, origin: Origin, request: Request, directory: Path, say: Say
) -> tuple[dict[str, Any], list[str]]:
    """Write and check all files of an export; the figures of the checks, and their sentences."""
    from training.checkpoints.opening import open_policy
    from training.export.card import CARD_FILE, write_card
    from training.export.parity import choose_prompts, greedy_replies
    from training.generation.sampling import banned_tokens, end_tokens
    from training.models.base_fit import embedding_rows

    say(f"loading {origin.policy.name} in fp32")
    policy = open_policy(db, home, origin.policy.id, "cpu")
    policy.folds = False  # the adapter as it was trained: a fold is a merge, and merging is what is checked
    prompts = choose_prompts(db, policy, request.prompts)
    say(f"drawing its greedy replies to {len(prompts)} prompts")
    ends = end_tokens(policy)
    banned = banned_tokens(policy.tokenizer, ends, embedding_rows(policy.model))
    replies = greedy_replies(policy, prompts)
    work = _Work(request, origin, policy, policy.tokenizer, policy.model.config, replies, ends, banned, say)
    del policy
    writers = {Form.adapter: _write_adapter, Form.merged: _write_merged, Form.gguf: _write_gguf}
    gguf_name = writers[request.written](work, directory)
    write_card(directory, origin, request.written.value, work.checks, gguf_name)
    write_provenance(directory, provenance(origin, request.written.value, work.figures))
    for name in _files(directory):  # safetensors gives its files to their owner alone
        (directory / name).chmod((directory / CARD_FILE).stat().st_mode)
    return work.figures, work.checks


def _write_adapter(work: _Work, directory: Path) -> str:
    from training.adapters.build import attach_adapter
    from training.export.adapter import write_adapter
    from training.export.parity import check_tokenizer, load_plain
    from training.models.base_files import base_directory

    work.policy = None
    write_adapter(directory, work.origin, shared=work.request.form is Form.hub)
    manifest = work.origin.manifest
    if manifest is not None and manifest.quantize != "none":
        check_tokenizer(directory, work.replies)
        work.passed(f"The base was held in {manifest.quantize}, and plain PEFT's replies were not compared.")
    else:
        _check_replies(work, directory, attach_adapter(load_plain(base_directory(work.origin.policy.base)), directory))
    return ""


def _write_merged(work: _Work, directory: Path) -> str:
    from training.export.merging import write_model, write_tokenizer
    from training.export.parity import load_plain

    work.say("merging and writing the weights")
    write_model(directory, work.merged(), ends=work.ends)
    write_tokenizer(directory, work.origin.policy.base)
    _check_replies(work, directory, load_plain(directory))
    return ""


def _write_gguf(work: _Work, directory: Path) -> str:
    from training.checkpoints.registration import policy_name
    from training.export.gguf_check import check_gguf_model, check_gguf_tokenizer
    from training.export.gguf_file import Labels, context_length, write_gguf
    from training.export.gguf_vocabulary import read_vocabulary
    from training.export.merging import plain_tokenizer
    from training.export.modelfile import MODELFILE, modelfile
    from training.models.base_fit import embedding_rows
    from training.models.chat import end_token, prompt_text

    origin, request, tokenizer = work.origin, work.request, plain_tokenizer(work.origin.policy.base)
    bos, asked = tokenizer.bos_token, prompt_text(work.tokenizer, work.replies[0].messages)
    model = work.merged()
    vocabulary = read_vocabulary(
        tokenizer,
        embedding_rows(model),
        end=end_token(work.tokenizer),
        begins_with_bos=bool(bos) and asked.startswith(bos),
    )
    name = f"{policy_name(origin.policy.name)}-{request.quantization}.gguf"
    work.say(f"merging and writing {name}")
    labels = Labels(origin.policy.name, origin.base_name, origin.base_license.get("license"))
    write_gguf(directory / name, model, vocabulary, request.quantization, labels)
    del model
    text = modelfile(name, tokenizer, context_length(work.config))
    (directory / MODELFILE).write_text(text, encoding="utf-8")
    if "\nTEMPLATE " not in text:
        work.say("the Modelfile has no TEMPLATE: Ollama looks for one it knows in the chat template of the file")
    texts = check_gguf_tokenizer(directory / name, work.tokenizer, work.replies)
    work.passed(f"The tokenizer of the file gives the same tokens for {texts} texts.", tokenizer_texts=texts)
    same, total = check_gguf_model(
        directory / name, work.config, work.replies, request.quantization, banned=work.banned
    )
    work.passed(
        f"{same} of {total} tokens ({100 * same / total:.1f} %) of the policy's greedy replies to {len(work.replies)} "
        f"prompts are the likeliest ones of the {request.quantization} file as well.",
        prompts=len(work.replies), tokens=total, same_tokens=same, agreement=same / total,
    )  # fmt: skip
    return name


def _check_replies(work: _Work, directory: Path, model: Any) -> None:
    from training.export.parity import check_replies, check_tokenizer

    check_tokenizer(directory, work.replies)
    check_replies(model, work.replies, work.tokenizer, ends=work.ends, banned=work.banned)
    tokens = sum(len(one.reply) for one in work.replies)
    work.passed(
        f"Greedy replies to {len(work.replies)} prompts ({tokens} tokens) are those of the policy, token by token.",
        prompts=len(work.replies), tokens=tokens, same_tokens=tokens,
    )  # fmt: skip


def _files(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()))
