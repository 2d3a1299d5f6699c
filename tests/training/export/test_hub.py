"""Pushing to the Hub: private by default, with a login, and nothing but the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

from feedback.database.engine import Database
from feedback.errors import Conflict, InvalidInput, Unavailable
from tests.training.export.conftest import MakePolicy
from training.export.exporting import Form, Request, export_policy
from training.export.hub import check_can_push, push
from training.home import Home


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api"))


class Repository:
    def __init__(self, private: bool, files: Sequence[str] = ()) -> None:
        self.private = private
        self.siblings = [SimpleNamespace(rfilename=name) for name in files]


class FakeHub:
    """Stands in for ``HfApi``: remembers what was asked of it; ``fails`` is raised by the act of that name."""

    def __init__(self, *, private: bool | None = None, **fails: Exception) -> None:
        self.private = private
        self.fails = fails
        self.created: dict[str, Any] = {}
        self.uploaded: dict[str, str] = {}
        self.files: list[str] = []

    def _maybe_fail(self, act: str) -> None:
        if act in self.fails:
            raise self.fails[act]

    def whoami(self) -> dict[str, str]:
        self._maybe_fail("whoami")
        return {"name": "me"}

    def repo_info(self, repo_id: str) -> Repository:
        if self.private is None:
            raise RepositoryNotFoundError("none", response=answer(404))
        return Repository(self.private, self.files)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self._maybe_fail("create_repo")
        self.created = {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str, delete_patterns: str) -> None:
        self._maybe_fail("upload_folder")
        assert delete_patterns == "*"  # no file of an earlier export stays
        self.uploaded = {
            str(path.relative_to(folder_path)): path.read_text(errors="replace")
            for path in Path(folder_path).rglob("*")
        }


@pytest.fixture
def policy(make_trained: MakePolicy, smol_like: Path) -> str:
    return make_trained(smol_like).name


def hub_request(**more: Any) -> Request:
    return Request(**{"form": Form.hub, "out": "me/child", "prompts": 1, **more})


@pytest.mark.parametrize("public", [False, True])
def test_a_merged_model_is_pushed(db: Database, home: Home, policy: str, public: bool, smol_like: Path) -> None:
    hub = FakeHub()
    done = export_policy(db, home, policy, hub_request(public=public), api=hub)
    assert done.place == "https://huggingface.co/me/child" and done.form == "merged"
    assert hub.created == {"repo_id": "me/child", "private": not public, "exist_ok": True}
    assert set(hub.uploaded) == set(done.files) >= {"model.safetensors", "README.md", "provenance.json"}
    assert list(home.exports.iterdir()) == []
    assert str(smol_like) not in "".join(hub.uploaded.values()) and str(home.path) not in "".join(hub.uploaded.values())


def test_an_adapter_is_pushed_without_a_path_of_this_machine(
    db: Database, home: Home, policy: str, smol_like: Path
) -> None:
    hub = FakeHub(private=True)
    export_policy(db, home, policy, hub_request(contents=Form.adapter), api=hub)
    assert '"base_model_name_or_path": "smol-like"' in hub.uploaded["adapter_config.json"]
    assert str(smol_like.parent) not in "".join(hub.uploaded.values())


def test_a_public_repository_is_not_written_by_chance(db: Database, home: Home, policy: str) -> None:
    hub = FakeHub(private=False)
    with pytest.raises(Conflict, match="exists and is public. `--public` pushes"):
        export_policy(db, home, policy, hub_request(), api=hub)
    assert not hub.created and not hub.uploaded
    export_policy(db, home, policy, hub_request(public=True), api=hub)
    assert hub.uploaded


def test_somebody_elses_files_are_never_replaced(db: Database, home: Home, policy: str) -> None:
    hub = FakeHub(private=True)
    hub.files = [".gitattributes", "README.md", "model.safetensors"]
    with pytest.raises(Conflict, match=r"no export of this studio wrote \(README.md\)"):
        export_policy(db, home, policy, hub_request(), api=hub)
    assert not hub.created and not hub.uploaded
    hub.files.append("provenance.json")
    export_policy(db, home, policy, hub_request(), api=hub)
    assert hub.uploaded


def test_a_repository_that_became_public_meanwhile_is_not_written(tmp_path: Path) -> None:
    hub = FakeHub(private=True)
    check_can_push(hub, "me/child", public=False)
    hub.private = False
    with pytest.raises(Conflict, match="exists and is public"):
        push(hub, tmp_path, "me/child", public=False, message="export")
    assert not hub.created and not hub.uploaded


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (LocalTokenNotFoundError("none"), InvalidInput, "Nobody is logged in .* `hf auth login`, or set HF_TOKEN"),
        (HfHubHTTPError("no", response=answer(401)), InvalidInput, "Nobody is logged in"),
        (HfHubHTTPError("no", response=answer(503)), Unavailable, "cannot be reached .* `hf upload USER/REPO DIR`"),
        (httpx.ConnectError("no route"), Unavailable, r"cannot be reached \(no route\)"),
        (ConnectionError("offline mode"), Unavailable, "Or export to a directory"),
    ],
)
def test_without_a_login_or_a_network_nothing_is_loaded(
    db: Database, home: Home, policy: str, error: Exception, kind: type[Exception], says: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("training.checkpoints.opening.open_policy", None)
    with pytest.raises(kind, match=says):
        export_policy(db, home, policy, hub_request(), api=FakeHub(whoami=error))


def test_a_login_that_may_not_write_is_told(db: Database, home: Home, policy: str) -> None:
    hub = FakeHub(create_repo=HfHubHTTPError("no", response=answer(403)))
    with pytest.raises(InvalidInput, match="may not write to me/child"):
        export_policy(db, home, policy, hub_request(), api=hub)
    assert list(home.exports.iterdir()) == []


def test_names_that_are_no_repository_are_refused(db: Database, home: Home, policy: str) -> None:
    for out in ("child", "/tmp/child", "me/child/more"):
        with pytest.raises(InvalidInput, match="name one as USER/REPO"):
            export_policy(db, home, policy, hub_request(out=out), api=FakeHub())
    with pytest.raises(InvalidInput, match="Valid contents: adapter, merged, gguf"):
        export_policy(db, home, policy, hub_request(contents=Form.hub), api=FakeHub())
