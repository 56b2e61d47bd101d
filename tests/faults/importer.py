"""An import in a process of its own, which tests kill, limit and cut off."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path
from typing import Any

from airflow_provider_feedamp.api.client import FeedAmpClient
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.bulk import place as place_module
from airflow_provider_feedamp.bulk.place import import_orders
from airflow_provider_feedamp.bulk.source import FileInput
from airflow_provider_feedamp.exceptions import FeedAmpError

#: What the server of the processes loads before it forks them.
PRELOADED = [__name__, "airflow.providers.common.compat.sdk", "airflow.sdk"]
#: Seconds between two checkpoints: shorter than in a task, as these imports are short.
SAVE_EVERY = 0.5


class OneToken:
    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token

    def replace(self, refused: str) -> str:
        return refused

    def accepted(self, token: str) -> None:
        """Take no note."""


class FileStore:
    """Keeps the checkpoint in a file, and how often there was one to go on from."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Any:
        return json.loads(self._path.read_text()) if self._path.exists() else None

    def save(self, value: dict[str, Any]) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(value))
        new.replace(self._path)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)


def place(job: dict[str, Any]) -> None:
    """Do one import; its log goes to ``job["log"]``, the account or the error is the last line of it."""
    out = Path(job["log"])
    logging.basicConfig(filename=out, level=logging.INFO, format="%(levelname)s %(message)s", force=True)
    place_module.SAVE_EVERY = SAVE_EVERY
    if job.get("room"):
        # Python takes no notice of the signal, and the write fails as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["room"], resource.RLIM_INFINITY))
    api = FeedAmpClient(Http(job["base_url"], OneToken(job["token"]))).orders
    try:
        counts = import_orders(
            FileInput(job["source"]),
            api,
            rejects=job["rejects"],
            account="a seller",
            checkpoints=FileStore(Path(job["checkpoint"])),
        )
    except FeedAmpError as error:
        logging.warning("%s: %s", type(error).__name__, error)
        raise SystemExit(1) from None
    logging.info("The account: %s", counts)
