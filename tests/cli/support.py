"""What the tests of the command share: a store that outlives a command, and ways to run and to authorise."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import requests
from click.testing import CliRunner

from airflow_provider_feedamp.cli.main import cli
from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

KEPT = "tests.cli.support.KeptStore"


class KeptStore(MemoryStore):
    """A store of somebody's own, for one process.

    :param damaged: Sellers whose records nobody can use.
    :param sealed: Sellers whose records are under a key that is not here. As for an Airflow Variable, whose
        name is a digest, the listing cannot name them.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__(conn_id)
        self.damaged: set[str] = set()
        self.sealed: set[str] = set()

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        return [key for key in super().keys(token_url, client_id) if key.seller not in self.sealed]

    def read(self, key: TokenKey) -> TokenRecord | None:
        if key.seller in self.sealed:
            raise TokenStoreError(f"The token record of seller {key.seller!r} cannot be decrypted.")
        if key.seller in self.damaged:
            msg = f"The stored token record of seller {key.seller!r} is damaged."
            raise TokenRecordError(msg)
        return super().read(key)

    def delete(self, key: TokenKey) -> None:
        self.damaged.discard(key.seller)
        super().delete(key)


@dataclass(frozen=True)
class Shop:
    """A marketplace: the sandbox, and the store that connection feedamp_default keeps its tokens in."""

    sandbox: RunningSandbox

    @property
    def store(self) -> KeptStore:
        store = open_store(KEPT, None)
        assert isinstance(store, KeptStore)
        return store

    def key(self, seller: str) -> TokenKey:
        url = f"{self.sandbox.base_url}/access_token"
        return TokenKey(url, self.sandbox.state.settings.client_id, seller)

    def record(self, seller: str) -> TokenRecord:
        record = self.store.read(self.key(seller))
        assert record is not None
        return record

    def put(self, seller: str, **fields: object) -> TokenRecord:
        """Store a record; the refresh token is one that the sandbox has never seen unless it is given."""
        values = {"refresh_token": f"refresh-of-{seller}", "issued_at": 1.0, **fields}
        return self.store.write(TokenRecord(key=self.key(seller), **values), expected=None)  # type: ignore[arg-type]


@dataclass
class Person:
    """Agrees in the browser, and pastes the URL that it came back to.

    :param account: The account that agrees.
    :param back: The URL.
    """

    shop: Shop
    account: str = "globex"
    back: str = "https://shop.example/back?code={code}&state={state}"
    state: str = ""
    code: str = ""

    def pastes(self, prompt: str) -> str:
        self.code = self.code or self.shop.sandbox.control.authorize(self.account)
        return self.back.format(code=quote(self.code), state=self.state)


def run(*arguments: str, stdin: str = "", code: int | None = None) -> Result:
    """Run the command, which has to end with the code if one is given."""
    result = CliRunner().invoke(cli, arguments, input=stdin)
    assert code in (None, result.exit_code), result.output
    return result


def listed() -> dict[str, dict[str, Any]]:
    """Return what `sellers list --json` says of each seller."""
    return {row["seller"]: row for row in json.loads(run("sellers", "list", "--json", code=0).stdout)}


def browse(url: str) -> str:
    """Open an authorisation URL as the seller's browser, and return where it is sent back to."""
    answer = requests.get(url, allow_redirects=False, timeout=10)
    assert answer.status_code in (302, 303, 307), answer.status_code
    return str(answer.headers["Location"])


def shown_url(text: str) -> str:
    """Return the authorisation URL that the command has printed."""
    (line,) = [line.strip() for line in text.splitlines() if "/authorize?" in line]
    return line


def parameter(url: str, name: str) -> str:
    (value,) = parse_qs(urlsplit(url).query)[name]
    return value


def in_background(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread
