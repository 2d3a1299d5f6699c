"""Finds the Chromium the browser tests drive, or installs one where that can be done.

Run as a script by ``make test``; imported by the tests. Looked for in this order: ``$STUDIO_CHROMIUM``, the usual
names and places, Playwright's own download.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
DEBIAN = "apt-get update && apt-get install -y chromium"
PLAYWRIGHT = f"{sys.executable} -m playwright install chromium"


def find() -> str | None:
    """The path of a Chromium, or None. A path in ``$STUDIO_CHROMIUM`` that is not there is an error, not a hint."""
    wanted = os.environ.get("STUDIO_CHROMIUM")
    if wanted:
        if not Path(wanted).is_file():
            raise SystemExit(f"$STUDIO_CHROMIUM names {wanted}, which is not there; unset it or name a Chromium.")
        return wanted
    named = next((path for name in NAMES if (path := shutil.which(name))), None)
    return named or next((place for place in PLACES if Path(place).is_file()), None) or _playwrights_own()


def install() -> None:
    """Install a Chromium: Debian's package as root, Playwright's download elsewhere."""
    as_debian_root = shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0
    command = DEBIAN if as_debian_root else PLAYWRIGHT
    print(f"No Chromium found; installing one: {command}", flush=True)
    subprocess.run(command, shell=True, check=False, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def remedy() -> str:
    """The one line to type when no Chromium can be had by itself."""
    if platform.system() == "Linux" and shutil.which("apt-get"):
        return f"sudo sh -c '{DEBIAN}'"
    return PLAYWRIGHT


def main() -> None:
    """Make sure there is one, or end with the line to type."""
    if find() is None:
        install()
    path = find()
    if path is None:
        raise SystemExit(f"The browser tests need Chromium and none could be installed. Type:\n    {remedy()}")
    print(f"Chromium: {path}")


def _playwrights_own() -> str | None:
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            path = playwright.chromium.executable_path
    except Exception:  # whatever is wrong with that installation, it is no Chromium for us
        return None
    return path if Path(path).is_file() else None


if __name__ == "__main__":
    main()
