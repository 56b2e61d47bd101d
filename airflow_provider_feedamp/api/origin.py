"""The origin of a URL: what decides whether a bearer may go there."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port; two URLs with the same three are served by the same party."""

    scheme: str
    host: str
    port: int | None


def origin_of(url: str | None) -> Origin:
    """Return the origin of a URL, with the scheme's own port where the URL names none."""
    parts = urlsplit(url or "")
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme))
