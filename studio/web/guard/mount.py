"""Where the studio is reached: the prefix and origin of a reverse proxy, and the names of this machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from feedback.errors import InvalidInput


@dataclass(frozen=True)
class Mount:
    """Where a reverse proxy shows the studio: under ``prefix`` (empty for none), at ``origin`` if that was said."""

    prefix: str = ""
    origin: str = ""

    @property
    def url(self) -> str:
        """What ``--root-path`` was: the whole address, or the prefix alone."""
        return self.origin + self.prefix

    @classmethod
    def parse(cls, text: str) -> Mount:
        """A path such as ``/studio`` or an address such as ``https://labs.example.org/studio``."""
        parts = urlsplit(text.strip())
        prefix = parts.path.rstrip("/")
        address = parts.scheme in ("http", "https") and parts.netloc and "@" not in parts.netloc
        if parts.query or parts.fragment or not (address or text.startswith("/")) or text.startswith("//"):
            raise InvalidInput(
                f"--root-path {text!r} is neither a path such as /studio nor an address such as "
                "https://labs.example.org/studio."
            )
        if any(part in ("..", ".", "") for part in prefix.split("/")[1:]):
            raise InvalidInput(f"--root-path {text!r} has an empty or dotted part; name a plain path such as /studio.")
        return cls(prefix, f"{parts.scheme}://{parts.netloc.lower()}" if address else "")


@lru_cache(maxsize=256)  # asked with every request, of the same few
def is_loopback(host: str) -> bool:
    """True for names and addresses that mean this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
