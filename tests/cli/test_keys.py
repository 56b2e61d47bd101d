"""Keys: records under one that is not here, a change of keys, and new ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.tokens.records import TokenRecord
from airflow_provider_feedamp.tokens.store import open_store
from tests.cli.support import listed, run
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import VARIABLE, sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.tokens.store import TokenStore
    from tests.cli.support import Shop

A, B, AIRFLOWS = (Fernet.generate_key().decode() for _ in range(3))


@dataclass(frozen=True)
class Vault:
    """The shop with its tokens in a database, encrypted under keys that can be changed."""

    shop: Shop
    environment: pytest.MonkeyPatch

    @property
    def store(self) -> TokenStore:
        return open_store("sql", "tokens")

    def under(self, own: str, fernet: str = AIRFLOWS) -> None:
        """Go on as a process of a deployment with these keys."""
        self.environment.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", own)
        set_fernet_key(self.environment, fernet)
        open_store.cache_clear()

    def put(self, *sellers: str) -> None:
        for seller in sellers:
            record = TokenRecord(key=self.shop.key(seller), refresh_token=f"refresh-of-{seller}")
            self.store.write(record, expected=None)

    def read(self, seller: str) -> TokenRecord | None:
        return self.store.read(self.shop.key(seller))

    def keys(self) -> dict[str, str | None]:
        return {seller: row["key"] for seller, row in listed().items() if row["state"] != "new"}


@pytest.fixture
def vault(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "sql")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID", "tokens")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))
    return Vault(shop, monkeypatch)


def test_a_record_under_a_key_that_is_not_here_is_listed_as_unreadable_with_the_reason(vault: Vault) -> None:
    vault.under(A)
    vault.put("hooli", "beta")
    vault.under(B)
    vault.put("zeta")

    rows, shown = listed(), run("sellers", "list", code=0)

    # The seller that the connection holds a refresh token for is not new: nobody may start it again.
    assert {seller: row["state"] for seller, row in rows.items()} == {
        "hooli": "unreadable",
        "beta": "unreadable",
        "zeta": "active",
    }
    assert "cannot be decrypted" in rows["hooli"]["outcome"]
    assert "cannot be decrypted" in shown.stdout


def test_a_listing_that_cannot_name_the_connections_seller_does_not_make_it_a_new_one(shop: Shop) -> None:
    shop.put("hooli")
    shop.store.sealed.add("hooli")

    ((seller, row),) = listed().items()

    assert (seller, row["state"]) == ("hooli", "unreadable")
    assert "cannot be decrypted" in row["outcome"]


def test_a_record_that_cannot_be_read_from_here_is_forgotten_on_request_only(vault: Vault) -> None:
    vault.under(A)
    vault.put("beta")
    vault.under(B)

    refused = run("sellers", "forget", "beta", "--yes")
    vault.under(A)
    kept = vault.read("beta")
    vault.under(B)
    forced = run("sellers", "forget", "beta", "--yes", "--force")
    vault.under(A)

    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "cannot be decrypted" in refused.stderr
    assert "Nothing was removed." in refused.stderr
    assert "--force" in refused.stderr
    assert kept is not None
    assert (forced.exit_code, forced.stderr) == (0, "")
    assert vault.read("beta") is None


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "forced"])
def test_nothing_is_forgotten_when_the_database_is_away(
    vault: Vault, tmp_path: Path, force: tuple[str, ...]
) -> None:
    vault.under(A)
    vault.put("beta")
    vault.environment.setenv(VARIABLE, sqlite(tmp_path / "no" / "such" / "folder"))
    open_store.cache_clear()

    run("sellers", "forget", "beta", "--yes", *force, code=1)

    vault.environment.setenv(VARIABLE, sqlite(tmp_path))
    open_store.cache_clear()
    assert vault.read("beta") is not None


def test_an_import_over_a_record_that_cannot_be_read_from_here_needs_force(
    vault: Vault, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(A)
    move = (str(tmp_path / "tokens.json"), "--key-file", str(key_file))
    vault.under(A)
    vault.put("beta")
    assert run("tokens", "export", *move).exit_code == 0
    vault.under(B)

    refused = run("tokens", "import", *move)
    untouched = vault.keys()
    forced = run("tokens", "import", *move, "--force")

    assert (refused.exit_code, refused.stdout) == (1, "0 imported, 0 already here, 1 refused.\n")
    assert "cannot be decrypted" in refused.stderr
    assert untouched == {"beta": None}
    assert forced.exit_code == 0
    assert vault.keys() == {"beta": "encryption_key"}


def test_reencrypt_brings_every_record_under_the_first_key_once(vault: Vault) -> None:
    vault.under(A)
    vault.put("beta", "gamma")
    before = vault.read("beta")
    vault.under(f"{B},{A}")
    vault.put("zeta")

    listed = vault.keys()
    first = run("tokens", "reencrypt")
    again = run("tokens", "reencrypt")
    vault.under(B)

    assert listed == {"beta": "encryption_key 2", "gamma": "encryption_key 2", "zeta": "encryption_key"}
    assert (first.exit_code, first.output) == (0, "2 written, 1 skipped, 0 failed.\n")
    assert (again.exit_code, again.output) == (0, "0 written, 3 skipped, 0 failed.\n")
    assert set(vault.keys().values()) == {"encryption_key"}
    assert before is not None
    after = vault.read("beta")
    assert after is not None
    assert after.changed(revision=0, released="") == before.changed(revision=0, released="")
    assert vault.shop.sandbox.control.counters()["token_posts"] == 0


def test_a_key_of_ones_own_is_turned_on_later(vault: Vault) -> None:
    vault.under("", fernet=A)
    vault.put("beta")
    nothing_to_do = run("tokens", "reencrypt")
    vault.under(B, fernet=A)

    listed, written = vault.keys(), run("tokens", "reencrypt")
    vault.under(B, fernet=B)

    assert nothing_to_do.stdout == "0 written, 1 skipped, 0 failed.\n"
    assert listed == {"beta": "fernet_key"}
    assert written.stdout == "1 written, 0 skipped, 0 failed.\n"
    assert vault.keys() == {"beta": "encryption_key"}


def test_after_a_change_of_airflows_own_key_all_are_written(vault: Vault) -> None:
    vault.under("", fernet=A)
    vault.put("beta")
    vault.under("", fernet=f"{B},{A}")

    by_name, all_of_them = run("tokens", "reencrypt"), run("tokens", "reencrypt", "--all")
    vault.under("", fernet=B)

    assert by_name.stdout == "0 written, 1 skipped, 0 failed.\n"
    assert all_of_them.stdout == "1 written, 0 skipped, 0 failed.\n"
    assert vault.keys() == {"beta": "fernet_key"}


def test_only_chosen_sellers_are_written(vault: Vault) -> None:
    vault.under(A)
    vault.put("beta", "gamma")
    vault.under(f"{B},{A}")

    result = run("tokens", "reencrypt", "--seller", "gamma", "--seller", "nobody")

    assert (result.exit_code, result.stdout) == (1, "1 written, 0 skipped, 1 failed.\n")
    assert result.stderr == "Error: there is no seller 'nobody'.\n"
    assert vault.keys() == {"beta": "encryption_key 2", "gamma": "encryption_key"}


def test_one_that_cannot_be_written_does_not_keep_the_others_back(vault: Vault) -> None:
    vault.under(A)
    vault.put("gamma", "zeta")
    vault.under(f"{B},{A}")

    with vault.store.lock(vault.shop.key("gamma"), wait=1, stop=threading.Event()):
        result = run("tokens", "reencrypt")

    assert (result.exit_code, result.stdout) == (1, "1 written, 0 skipped, 1 failed.\n")
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "'gamma'" in error
    assert vault.keys()["zeta"] == "encryption_key"


def test_records_that_cannot_be_read_fail_and_stay(vault: Vault) -> None:
    vault.under(A)
    vault.put("beta")
    vault.under(B)

    result = run("tokens", "reencrypt", "--all")
    vault.under(A)

    assert (result.exit_code, result.stdout) == (1, "0 written, 0 skipped, 1 failed.\n")
    assert "cannot be decrypted" in result.stderr
    assert vault.read("beta") is not None


def test_a_store_that_does_not_encrypt_is_not_said_to_have_done_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("zeta")
    left_to_airflow = run("tokens", "reencrypt")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", A)

    result = run("tokens", "reencrypt")

    assert left_to_airflow.output == "0 written, 1 skipped, 0 failed.\n"
    assert (result.exit_code, result.stdout) == (1, "0 written, 0 skipped, 1 failed.\n")
    assert "KeptStore" in result.stderr


def test_a_key_that_is_none_ends_it_before_a_record_is_read(vault: Vault) -> None:
    vault.under(A)
    vault.put("beta")
    vault.under("no-key")

    result = run("tokens", "reencrypt")

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "[feedamp] encryption_key" in result.stderr
    assert "no-key" not in result.output


def test_keygen_prints_a_new_key_and_says_where_it_goes() -> None:
    first, second = run("keygen"), run("keygen")

    assert Fernet(first.stdout.rstrip("\n")).decrypt(Fernet(first.stdout.strip()).encrypt(b"x")) == b"x"
    assert first.stdout != second.stdout
    assert (first.stdout.count("\n"), first.stderr.count("\n")) == (1, 1)
    assert "AIRFLOW__FEEDAMP__ENCRYPTION_KEY" in first.stderr


@pytest.mark.processes
def test_another_process_with_another_key_says_so_and_leaves_the_record(vault: Vault, tmp_path: Path) -> None:
    def process(own: str, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "airflow_provider_feedamp", *arguments],
            env={**os.environ, "AIRFLOW__FEEDAMP__ENCRYPTION_KEY": own},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    def listed(own: str) -> list[tuple[str, str | None]]:
        code, output, errors = process(own, "sellers", "list", "--json")
        assert code == 0, errors
        return [(row["state"], row["key"]) for row in json.loads(output) if row["seller"] == "beta"]

    vault.under(A)
    vault.put("beta")

    assert listed(A) == [("active", "encryption_key")]
    assert listed(B) == [("unreadable", None)]
    assert process(B, "sellers", "forget", "beta", "--yes")[0] == 1
    assert process(B, "tokens", "reencrypt")[:2] == (1, "0 written, 0 skipped, 1 failed.\n")
    assert process(f"{B},{A}", "tokens", "reencrypt")[:2] == (0, "1 written, 0 skipped, 0 failed.\n")
    assert listed(B) == [("active", "encryption_key")]
    assert process(A, "sellers", "forget", "beta", "--yes", "--force")[0] == 0
    assert listed(B) == []
