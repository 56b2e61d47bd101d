from __future__ import annotations

import json
import secrets
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.tokens.records import Attempt, RecordState
from tests.cli.support import run

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.tokens.records import TokenRecord
    from tests.cli.support import Shop

WORDS = "correct horse battery\n"

FULL: dict[str, Any] = {
    "access_token": "access-of-zeta",
    "expires_at": 1_800_000_000.25,
    "lifetime": 3600.0,
    "issued_at": 1_799_996_400.5,
    "generation": 9,
    "family": "f9",
    "state": RecordState.UNCERTAIN,
    "attempt": Attempt("a1", "f1", 1_799_999_999.0),
    "reason": "FeedAMP's answer was lost",
    "seeds": ("s1", "s2"),
    "superseded": "superseded-of-zeta",
    "refused_seed": "s3",
    "refused_secret": "s4",
}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(Fernet.generate_key().decode() + "\n")
    return path


def kept(record: TokenRecord) -> TokenRecord:
    """Return what a move has to keep: all but what the store puts into a record, and that it was moved."""
    return record.changed(revision=0, released="", imported=False)


@pytest.mark.parametrize("with_key", [True, False], ids=["key file", "passphrase"])
def test_a_round_trip_keeps_everything(shop: Shop, tmp_path: Path, key_file: Path, with_key: bool) -> None:
    names = ["zeta", "Ünïcode/ü\n", "x" * 500]
    before = {name: shop.put(name, **FULL) for name in names}
    file = tmp_path / "tokens.json"
    seal, words = (("--key-file", str(key_file)), "") if with_key else ((), WORDS)

    exported = run("tokens", "export", str(file), *seal, stdin=words)
    for name in names:
        shop.store.delete(shop.key(name))
    imported = run("tokens", "import", str(file), *seal, stdin=words)

    assert (exported.exit_code, exported.stdout) == (0, f"3 exported to {str(file)!r}.\n"), exported.output
    assert (imported.exit_code, imported.stdout) == (0, "3 imported, 0 already here, 0 refused.\n")
    assert {name: kept(shop.record(name)) for name in names} == {
        name: kept(record) for name, record in before.items()
    }


def test_the_file_holds_nothing_in_clear_and_is_its_owners(
    shop: Shop, tmp_path: Path, key_file: Path
) -> None:
    shop.put("zeta", **FULL)
    file = tmp_path / "tokens.json"

    result = run("tokens", "export", str(file), "--key-file", str(key_file))

    assert "zeta" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "-of-zeta" not in result.output


def test_only_the_chosen_sellers_are_exported(shop: Shop, tmp_path: Path, key_file: Path) -> None:
    for name in ("beta", "gamma", "zeta"):
        shop.put(name)
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))

    run("tokens", "export", file, "--seller", "beta", "--seller", "zeta", *key)
    for name in ("beta", "gamma", "zeta"):
        shop.store.delete(shop.key(name))
    run("tokens", "import", file, *key)

    assert [shop.store.read(shop.key(name)) is not None for name in ("beta", "gamma", "zeta")] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("seller", "said"), [("nobody", "there is no seller 'nobody'"), ("acme", "has no record yet")]
)
def test_a_chosen_seller_without_a_record_fails_and_writes_nothing(
    shop: Shop, tmp_path: Path, key_file: Path, seller: str, said: str
) -> None:
    file = tmp_path / "tokens.json"

    result = run("tokens", "export", str(file), "--seller", seller, "--key-file", str(key_file))

    assert result.exit_code == 1
    assert said in result.stderr
    assert not file.exists()


def test_an_unreadable_record_is_told_and_the_others_are_exported(
    shop: Shop, tmp_path: Path, key_file: Path
) -> None:
    shop.put("beta")
    shop.put("zeta")
    shop.store.damaged.add("beta")
    file = tmp_path / "tokens.json"

    result = run("tokens", "export", str(file), "--key-file", str(key_file))

    assert result.exit_code == 1
    assert "seller 'beta' is damaged" in result.stderr
    assert result.stdout.startswith("1 exported")


def test_an_export_never_replaces_a_file(shop: Shop, tmp_path: Path, key_file: Path) -> None:
    shop.put("zeta")
    file = tmp_path / "tokens.json"
    file.write_text("another export")

    result = run("tokens", "export", str(file), "--key-file", str(key_file))

    assert result.exit_code == 1
    assert file.read_text() == "another export"


@pytest.mark.parametrize(
    ("stored", "force", "outcome", "generation"),
    [
        (8, False, "1 imported", 9),
        (9, False, "1 refused", 9),
        (10, False, "1 refused", 10),
        (9, True, "1 imported", 9),
        (10, True, "1 imported", 9),
    ],
)
def test_import_keeps_a_record_that_is_as_new_or_newer_unless_forced(
    shop: Shop, tmp_path: Path, key_file: Path, stored: int, force: bool, outcome: str, generation: int
) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    shop.store.delete(shop.key("zeta"))
    # A worker with a slow clock may have issued a later generation at an earlier time.
    shop.put("zeta", generation=stored, refresh_token="another", family="f9", issued_at=1.0)

    result = run("tokens", "import", file, *key, *(["--force"] if force else []))

    assert outcome in result.stdout
    assert result.exit_code == ("refused" in outcome and "1 refused" in outcome)
    assert shop.record("zeta").generation == generation
    assert (shop.record("zeta").refresh_token == "another") == (outcome == "1 refused")


@pytest.mark.parametrize(
    ("family", "issued_at", "outcome"),
    [
        ("another", FULL["issued_at"] + 3 * 86400, "(3 d older)"),
        ("another", FULL["issued_at"], "--force does it"),
        ("another", FULL["issued_at"] - 1, "1 imported"),
        ("", FULL["issued_at"] + 90, "(1 min 30 s older)"),
    ],
)
@pytest.mark.parametrize("generation", [1, 40])
def test_of_two_authorisations_the_one_of_the_later_time_stays(
    shop: Shop, tmp_path: Path, key_file: Path, family: str, issued_at: float, outcome: str, generation: int
) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    shop.store.delete(shop.key("zeta"))
    shop.put("zeta", generation=generation, family=family, issued_at=issued_at)

    result = run("tokens", "import", file, *key)

    assert outcome in result.output
    assert shop.record("zeta").generation == (9 if outcome == "1 imported" else generation)


def test_an_old_export_does_not_replace_a_new_authorisation(
    shop: Shop, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_urlsafe", lambda size: "the-state")
    move = (str(tmp_path / "tokens.json"), "--key-file", str(key_file))

    def authorise() -> None:
        back = f"code={quote(shop.sandbox.control.authorize('globex'))}&state=the-state"
        assert run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back).exit_code == 0

    authorise()
    run("sellers", "refresh", "globex")
    run("tokens", "export", *move)
    run("sellers", "forget", "globex", "--yes")
    authorise()

    result = run("tokens", "import", *move)

    assert (result.exit_code, result.stdout) == (1, "0 imported, 0 already here, 1 refused.\n")
    assert "another authorisation of 2" in result.stderr
    assert run("sellers", "refresh", "globex").exit_code == 0


@pytest.mark.parametrize(("force", "outcome"), [((), "0 imported, 1 already"), (("--force",), "1 imported")])
def test_the_same_tokens_are_written_again_when_forced(
    shop: Shop, tmp_path: Path, key_file: Path, force: tuple[str, ...], outcome: str
) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    stored = shop.record("zeta")
    shop.store.write(stored.changed(state=RecordState.REAUTH_REQUIRED), expected=stored.revision)

    result = run("tokens", "import", file, *key, *force)

    assert outcome in result.stdout
    assert (shop.record("zeta").state is FULL["state"]) is bool(force)


def test_a_record_knows_that_it_was_imported(shop: Shop, tmp_path: Path, key_file: Path) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    shop.store.delete(shop.key("zeta"))

    run("tokens", "import", file, *key)

    assert shop.record("zeta").imported


def test_importing_twice_changes_nothing(shop: Shop, tmp_path: Path, key_file: Path) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    before = shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)

    result = run("tokens", "import", file, *key)

    assert (result.exit_code, result.stdout) == (0, "0 imported, 1 already here, 0 refused.\n")
    assert shop.record("zeta") == before


def test_import_replaces_an_unreadable_record_only_when_forced(
    shop: Shop, tmp_path: Path, key_file: Path
) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    shop.store.damaged.add("zeta")

    refused = run("tokens", "import", file, *key)
    forced = run("tokens", "import", file, *key, "--force")

    assert (refused.exit_code, forced.exit_code) == (1, 0)
    assert shop.record("zeta").generation == 9


def test_import_waits_for_a_renewal_that_is_under_way(
    shop: Shop, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    shop.store.delete(shop.key("zeta"))

    with shop.store.lock(shop.key("zeta"), wait=1, stop=threading.Event()):
        result = run("tokens", "import", file, *key)

    assert result.exit_code == 1
    assert shop.store.read(shop.key("zeta")) is None


def test_another_clients_records_are_refused(
    shop: Shop, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    shop.put("zeta", **FULL)
    run("tokens", "export", file, *key)
    connection = shop.sandbox.connection("acme")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps({**connection, "login": "client-2"}))

    result = run("tokens", "import", file, *key, "--force")

    assert result.exit_code == 1
    assert "client 'demo-client'" in result.stderr
    assert "'client-2'" in result.stderr


def test_one_refused_record_does_not_keep_the_others_out(shop: Shop, tmp_path: Path, key_file: Path) -> None:
    file, key = str(tmp_path / "tokens.json"), ("--key-file", str(key_file))
    for name in ("beta", "gamma", "zeta"):
        shop.put(name, generation=3, family="f", issued_at=1_800_000_000.0)
    run("tokens", "export", file, *key)
    for name in ("beta", "zeta"):
        shop.store.delete(shop.key(name))
    shop.store.delete(shop.key("gamma"))
    shop.put("gamma", generation=4, family="f", issued_at=1_800_007_500.0)

    result = run("tokens", "import", file, *key)

    assert (result.exit_code, result.stdout) == (1, "2 imported, 0 already here, 1 refused.\n")
    assert "seller 'gamma': generation 4 is stored here, the file has 3 of the same" in result.stderr
    assert "(2 h 5 min older)" in result.stderr
