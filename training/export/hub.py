"""Push an export to the Hugging Face Hub with the user's own login: private unless said otherwise, never any data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

from feedback.errors import Conflict, InvalidInput, Unavailable
from training.export.origin import PROVENANCE_FILE

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_INSTEAD = "Or export to a directory (`--as merged --out DIR`) and upload that later: `hf upload USER/REPO DIR`."


class HubApi(Protocol):
    """The part of ``huggingface_hub.HfApi`` that a push uses."""

    def whoami(self) -> Any: ...

    def repo_info(self, repo_id: str) -> Any: ...

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, delete_patterns: str) -> Any: ...


def open_hub() -> HubApi:
    """The Hub with the login of this account."""
    from huggingface_hub import HfApi

    api: HubApi = HfApi()
    return api


def check_can_push(api: HubApi, repository: str, *, public: bool) -> None:
    """See, before hours of work, that there is a login and that the repository may be written as asked.

    Raises:
        InvalidInput: The name is not USER/REPO, or nobody is logged in.
        Conflict: The repository is public already, and a private one was asked for; or it holds files that no export
            wrote.
        Unavailable: The Hub cannot be reached.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    if _REPOSITORY.fullmatch(repository) is None:
        raise InvalidInput(f"{repository!r} is no repository of the Hub; name one as USER/REPO: `--out USER/REPO`.")
    with _explained(repository):
        api.whoami()
        try:
            found = api.repo_info(repository)
        except RepositoryNotFoundError:
            return
    is_private = bool(getattr(found, "private", False))
    if not is_private and not public:
        raise Conflict(
            f"The repository {repository} exists and is public. `--public` pushes to it all the same; another name "
            "makes a private one."
        )
    files = {one.rfilename for one in getattr(found, "siblings", None) or ()} - {".gitattributes"}
    if files and PROVENANCE_FILE not in files:
        raise Conflict(
            f"The repository {repository} holds files that no export of this studio wrote ({min(files)}): nothing of "
            "them is replaced. Name another repository."
        )


def push(api: HubApi, directory: Path, repository: str, *, public: bool, message: str) -> str:
    """Create the repository where it is missing, upload the directory, and return the repository's address.

    An earlier export there is replaced, so that no old weights stay beside the new ones; its history keeps it. What
    ``check_can_push`` refuses is refused again, since hours may have passed.

    Raises:
        InvalidInput: The login may not write there.
        Conflict: The repository has become one that is not written to.
        Unavailable: The Hub cannot be reached.
    """
    check_can_push(api, repository, public=public)
    with _explained(repository):
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(directory), commit_message=message, delete_patterns="*")
    return f"https://huggingface.co/{repository}"


class _explained:
    """Turns what the Hub's client raises into errors that say what to do next."""

    def __init__(self, repository: str) -> None:
        self.repository = repository

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, LocalTokenNotFoundError) or status == 401:
            raise InvalidInput(
                "Nobody is logged in to the Hugging Face Hub here: `hf auth login`, or set HF_TOKEN to a token that "
                f"may write. {_INSTEAD}"
            ) from error
        if status == 403 or isinstance(error, RepositoryNotFoundError):
            raise InvalidInput(
                f"This login may not write to {self.repository} (status {status}). Name a repository of your own, or "
                "log in with a token that may write: `hf auth login`."
            ) from error
        if isinstance(error, HfHubHTTPError) or _is_network(error):
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(f"The Hugging Face Hub cannot be reached ({first}). {_INSTEAD}") from error


def _is_network(error: BaseException) -> bool:
    import httpx

    return isinstance(error, httpx.TransportError | ConnectionError | TimeoutError)
