from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.tokens.records import Attempt, RecordState
from tests.cli.support import run

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.records import TokenRecord
    from tests.cli.support import Person, Shop

WORDS = "correct horse battery\n"
ISSUED = 1_799_996_400.5
FULL: dict[str, Any] = {
    "access_token": "access-of-zeta",
    "expires_at": 1_800_000_000.25,
    "lifetime": 3600.0,
    "issued_at": ISSUED,
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
Move = tuple[str, ...]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def move(file: Path) -> Move:
    """What `tokens export` and `tokens import` get: the file, and a key for it."""
    return (str(file), *key_file(file.with_name("key"), Fernet.generate_key().decode() + "\n"))


def key_file(path: Path, text: str) -> Move:
    path.write_text(text)
    return ("--key-file", str(path))


def export(shop: Shop, move: Move, *, forget: bool = True) -> TokenRecord:
    """Export a full record of the seller zeta; then the store has none."""
    record = shop.put("zeta", **FULL)
    assert run("tokens", "export", *move).exit_code == 0
    if forget:
        shop.store.delete(shop.key("zeta"))
    return record


def kept(record: TokenRecord) -> TokenRecord:
    """Return what a move has to keep: all but what the store puts into a record, and that it was moved."""
    return record.changed(revision=0, released="", imported=False)


@pytest.mark.parametrize("with_key", [True, False], ids=["key file", "passphrase"])
def test_a_round_trip_keeps_everything(shop: Shop, move: Move, with_key: bool) -> None:
    names = ["zeta", "Ünïcode/ü\n", "x" * 500]
    before = {name: shop.put(name, **FULL) for name in names}
    move, words = (move, "") if with_key else (move[:1], WORDS)

    exported = run("tokens", "export", *move, stdin=words)
    for name in names:
        shop.store.delete(shop.key(name))
    imported = run("tokens", "import", *move, stdin=words)

    assert (exported.exit_code, exported.stdout) == (0, f"3 exported to {move[0]!r}.\n"), exported.output
    assert (imported.exit_code, imported.stdout) == (0, "3 imported, 0 already here, 0 refused.\n")
    assert {name: kept(shop.record(name)) for name in names} == {
        name: kept(record) for name, record in before.items()
    }
    assert shop.record("zeta").imported


def test_the_file_holds_nothing_in_clear_and_is_its_owners(shop: Shop, file: Path, move: Move) -> None:
    shop.put("zeta", **FULL)

    result = run("tokens", "export", *move)

    assert "zeta" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "-of-zeta" not in result.output


def test_only_the_chosen_sellers_are_exported(shop: Shop, move: Move) -> None:
    for name in ("beta", "gamma", "zeta"):
        shop.put(name)
    run("tokens", "export", *move, "--seller", "beta", "--seller", "zeta")
    for name in ("beta", "gamma", "zeta"):
        shop.store.delete(shop.key(name))

    run("tokens", "import", *move)

    there = [name for name in ("beta", "gamma", "zeta") if shop.store.read(shop.key(name)) is not None]
    assert there == ["beta", "zeta"]


@pytest.mark.parametrize(
    ("seller", "said"), [("nobody", "there is no seller 'nobody'"), ("hooli", "has no record yet")]
)
def test_a_chosen_seller_without_a_record_fails_and_writes_nothing(
    shop: Shop, file: Path, move: Move, seller: str, said: str
) -> None:
    result = run("tokens", "export", *move, "--seller", seller, code=1)

    assert said in result.stderr
    assert not file.exists()


def test_an_unreadable_record_is_told_and_the_others_are_exported(shop: Shop, move: Move) -> None:
    shop.put("beta")
    shop.put("zeta")
    shop.store.damaged.add("beta")

    result = run("tokens", "export", *move, code=1)

    assert "seller 'beta' is damaged" in result.stderr
    assert result.stdout.startswith("1 exported")


@pytest.mark.parametrize(("seen", "said"), [(True, "never replaces a file"), (False, "cannot be written")])
def test_an_export_never_replaces_a_file(
    shop: Shop, file: Path, move: Move, monkeypatch: pytest.MonkeyPatch, seen: bool, said: str
) -> None:
    shop.put("zeta")
    file.write_text("another export")
    if not seen:  # one that somebody writes just then
        monkeypatch.setattr(Path, "exists", lambda self: False)

    result = run("tokens", "export", *move, code=1)

    assert said in result.stderr
    assert file.read_text() == "another export"


def test_a_folder_that_is_missing_cannot_be_written_to(shop: Shop, file: Path, move: Move) -> None:
    shop.put("zeta")

    result = run("tokens", "export", str(file.parent / "missing" / "tokens.json"), *move[1:])

    assert (result.exit_code, "cannot be written" in result.stderr) == (1, True)


@pytest.mark.parametrize("sealed_with_key", [True, False])
def test_a_file_opens_with_what_sealed_it_only(
    shop: Shop, tmp_path: Path, move: Move, sealed_with_key: bool
) -> None:
    shop.put("zeta")
    other = (move[0], *key_file(tmp_path / "other", Fernet.generate_key().decode()))
    ways = {"key": (move, ""), "other key": (other, ""), "words": (move[:1], WORDS)}
    ways["other words"] = (move[:1], "another horse battery\n")
    right, wrong, misuse = (
        ("key", "other key", "words") if sealed_with_key else ("words", "other words", "key")
    )
    run("tokens", "export", *ways[right][0], stdin=ways[right][1])

    codes = {
        way: run("tokens", "import", *ways[way][0], stdin=ways[way][1]) for way in (right, wrong, misuse)
    }

    assert [result.exit_code for result in codes.values()] == [0, 1, 2]
    assert "cannot be opened" in codes[wrong].stderr
    assert "is sealed with a" in codes[misuse].stderr


def test_two_exports_under_one_passphrase_share_no_salt(shop: Shop, tmp_path: Path) -> None:
    shop.put("zeta")
    files = [tmp_path / name for name in ("a", "b")]
    for each in files:
        run("tokens", "export", str(each), stdin=WORDS)

    assert len({json.loads(each.read_text())["salt"] for each in files}) == 2


def test_a_changed_file_does_not_open(shop: Shop, file: Path, move: Move) -> None:
    export(shop, move)
    content = json.loads(file.read_text())
    middle = len(content["sealed"]) // 2
    flipped = "A" if content["sealed"][middle] != "A" else "B"
    content["sealed"] = content["sealed"][:middle] + flipped + content["sealed"][middle + 1 :]
    file.write_text(json.dumps(content))

    assert "the file is damaged" in run("tokens", "import", *move).stderr


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"kind": "other", "version": 1, "salt": null, "sealed": ""}',
        b'{"kind": "feedamp-tokens", "version": 1, "salt": 5, "sealed": "x"}',
        "\ufeff".encode(),
        b"[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_export_is_one_clear_error(file: Path, move: Move, content: bytes) -> None:
    file.write_bytes(content)

    result = run("tokens", "import", *move)

    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "is not a file of 'feedamp tokens export'" in result.stderr


def test_a_file_of_a_later_version_and_one_that_is_missing_are_told_apart_from_damage(
    file: Path, move: Move
) -> None:
    file.write_text('{"kind": "feedamp-tokens", "version": 2, "salt": null, "sealed": "x"}')

    assert "Upgrade" in run("tokens", "import", *move, code=1).stderr
    for path in (file.with_name("missing"), file.parent):
        assert "cannot be read" in run("tokens", "import", str(path), *move[1:], code=1).stderr


@pytest.mark.parametrize("text", ["", "short", "ü" * 44, "A" * 43])
def test_a_key_file_without_a_key_says_how_to_make_one(file: Path, text: str) -> None:
    result = run("tokens", "export", str(file), *key_file(file.with_name("key"), text), code=2)

    assert "feedamp keygen" in result.stderr
    assert not text or text not in result.stderr


def test_a_key_file_that_is_missing_is_a_failure(file: Path) -> None:
    missing = str(file.with_name("missing"))

    assert "cannot be read" in run("tokens", "export", str(file), "--key-file", missing, code=1).stderr


@pytest.mark.parametrize("typed", ["", "\n", "eleven char\n"])
def test_a_short_passphrase_is_refused_for_an_export(file: Path, typed: str) -> None:
    result = run("tokens", "export", str(file), stdin=typed, code=2)

    assert result.stderr == "Error: The passphrase needs 12 characters at least.\n"


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
    shop: Shop, move: Move, stored: int, force: bool, outcome: str, generation: int
) -> None:
    export(shop, move)
    # A worker with a slow clock may have issued a later generation at an earlier time.
    shop.put("zeta", generation=stored, refresh_token="another", family="f9", issued_at=1.0)

    result = run("tokens", "import", *move, *(["--force"] if force else []))

    refused = outcome == "1 refused"
    assert outcome in result.stdout
    assert result.exit_code == refused
    assert shop.record("zeta").generation == generation
    assert (shop.record("zeta").refresh_token == "another") is refused


@pytest.mark.parametrize(
    ("family", "issued_at", "outcome"),
    [
        ("another", ISSUED + 3 * 86400, "(3 d older)"),
        ("another", ISSUED, "--force does it"),
        ("another", ISSUED - 1, "1 imported"),
        ("", ISSUED + 90, "(1 min 30 s older)"),
    ],
)
@pytest.mark.parametrize("generation", [1, 40])
def test_of_two_authorisations_the_one_of_the_later_time_stays(
    shop: Shop, move: Move, family: str, issued_at: float, outcome: str, generation: int
) -> None:
    export(shop, move)
    shop.put("zeta", generation=generation, family=family, issued_at=issued_at)

    result = run("tokens", "import", *move)

    assert outcome in result.output
    assert shop.record("zeta").generation == (9 if outcome == "1 imported" else generation)


def test_an_old_export_does_not_replace_a_new_authorisation(shop: Shop, move: Move, person: Person) -> None:
    def authorise() -> None:
        person.code = ""
        run("sellers", "authorize", "globex", "--code-from-stdin", "--force", code=0)

    authorise()
    run("sellers", "refresh", "globex")
    run("tokens", "export", *move)
    run("sellers", "forget", "globex", "--yes")
    authorise()

    result = run("tokens", "import", *move)

    assert (result.exit_code, result.stdout) == (1, "0 imported, 0 already here, 1 refused.\n")
    assert "another authorisation of 2" in result.stderr
    assert run("sellers", "refresh", "globex").exit_code == 0


def test_the_same_tokens_are_written_again_only_when_forced(shop: Shop, move: Move) -> None:
    stored = export(shop, move, forget=False)
    stored = shop.store.write(stored.changed(state=RecordState.REAUTH_REQUIRED), expected=stored.revision)

    again = run("tokens", "import", *move, code=0)
    untouched = shop.record("zeta") == stored
    forced = run("tokens", "import", *move, "--force", code=0)

    assert (again.stdout, untouched) == ("0 imported, 1 already here, 0 refused.\n", True)
    assert forced.stdout.startswith("1 imported")
    assert shop.record("zeta").state is FULL["state"]


def test_import_replaces_an_unreadable_record_only_when_forced(shop: Shop, move: Move) -> None:
    export(shop, move, forget=False)
    shop.store.damaged.add("zeta")

    refused, forced = run("tokens", "import", *move), run("tokens", "import", *move, "--force")

    assert (refused.exit_code, forced.exit_code) == (1, 0)
    assert shop.record("zeta").generation == 9


def test_import_waits_for_a_renewal_that_is_under_way(
    shop: Shop, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    export(shop, move)

    with shop.store.lock(shop.key("zeta"), wait=1, stop=threading.Event()):
        result = run("tokens", "import", *move)

    assert result.exit_code == 1
    assert shop.store.read(shop.key("zeta")) is None


def test_another_clients_records_are_refused(shop: Shop, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    export(shop, move, forget=False)
    connection = {**shop.sandbox.connection("hooli"), "login": "client-2"}
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))

    result = run("tokens", "import", *move, "--force", code=1)

    assert "client 'demo-client'" in result.stderr
    assert "'client-2'" in result.stderr


def test_one_refused_record_does_not_keep_the_others_out(shop: Shop, move: Move) -> None:
    names = ("beta", "gamma", "zeta")
    for name in names:
        shop.put(name, generation=3, family="f", issued_at=1_800_000_000.0)
    run("tokens", "export", *move)
    for name in names:
        shop.store.delete(shop.key(name))
    shop.put("gamma", generation=4, family="f", issued_at=1_800_007_500.0)

    result = run("tokens", "import", *move)

    assert (result.exit_code, result.stdout) == (1, "2 imported, 0 already here, 1 refused.\n")
    assert "seller 'gamma': generation 4 is stored here, the file has 3 of the same" in result.stderr
    assert "(2 h 5 min older)" in result.stderr
