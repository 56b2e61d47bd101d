"""What the build adds to the package's metadata: the project's addresses, and README with whole links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

_URLS = "scripts/project_urls"
# The target of a link or picture of README that is neither a whole address nor a place in README itself.
_RELATIVE = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\])\((?P<target>(?!\w+:|#)[^)\s]+)\)")


def address(root: Path) -> str | None:
    """Return the repository's address out of ``scripts/project_urls``, None while nobody has written it.

    :raises ValueError: if the file holds something else than one https address.
    """
    lines = (root / _URLS).read_text(encoding="utf-8").splitlines()
    written = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not written:
        return None
    parts = urlsplit(written[0])
    if len(written) > 1 or parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{_URLS} must hold one https address of the repository, alone on a line")
    return written[0].rstrip("/")


def version(root: Path) -> str:
    """Return the version of the checkout, from its only place."""
    text = (root / "airflow_provider_feedamp" / "__init__.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return str(found)


def urls(repository: str) -> dict[str, str]:
    """Return the addresses of the package's page; the site of a GitHub repository is its GitHub Pages."""
    parts = urlsplit(repository)
    owner, _, name = parts.path.strip("/").partition("/")
    site = (
        {"Documentation": f"https://{owner.lower()}.github.io/{name}/"}
        if parts.hostname == "github.com"
        else {}
    )
    return site | {
        "Source": repository,
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
        "Bug Tracker": f"{repository}/issues",
    }


def readme(text: str, repository: str | None, version: str) -> str:
    """Return README as the package's page shows it, where only whole links lead anywhere."""
    if repository is None:
        return text

    def whole(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}{found['text']}({repository}/{kind}/v{version}/{found['target']})"

    return _RELATIVE.sub(whole, text)


class ProjectMetadata(MetadataHookInterface):
    """Adds ``urls`` and ``readme``, which ``pyproject.toml`` leaves open."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add both to the project's metadata."""
        root = Path(self.root)
        repository = address(root)
        text = readme((root / "README.md").read_text(encoding="utf-8"), repository, version(root))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
        if repository is not None:
            metadata["urls"] = urls(repository)
