from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.cli.archive import Lock, SealedFile, seal, write_new
from airflow_provider_feedamp.cli.group import FailedError, MisuseError
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from tests.cli.support import run

if TYPE_CHECKING:
    from pathlib import Path

RECORD = TokenRecord(key=TokenKey("https://f.test/t", "c", "acme"), refresh_token="refresh-secret")
KEY = Lock(key=Fernet.generate_key().decode())
WORDS = Lock(passphrase="correct horse battery")


def file_of(path: Path, lock: Lock) -> Path:
    file = path / "tokens.json"
    write_new(file, seal([RECORD], lock))
    return file


@pytest.mark.parametrize(
    ("sealed", "opened", "error"),
    [
        (KEY, Lock(key=Fernet.generate_key().decode()), FailedError),
        (WORDS, Lock(passphrase="another horse battery"), FailedError),
        (KEY, WORDS, MisuseError),
        (WORDS, KEY, MisuseError),
    ],
)
def test_a_file_opens_with_what_sealed_it_only(
    tmp_path: Path, sealed: Lock, opened: Lock, error: type[FailedError]
) -> None:
    file = file_of(tmp_path, sealed)

    assert SealedFile.read(file).open(sealed) == [RECORD]
    with pytest.raises(error) as caught:
        SealedFile.read(file).open(opened)
    assert type(caught.value) is error


def test_two_exports_under_one_passphrase_share_no_salt() -> None:
    salts = {json.loads(seal([RECORD], WORDS))["salt"] for _ in range(2)}

    assert len(salts) == 2


def test_a_changed_file_does_not_open(tmp_path: Path) -> None:
    file = file_of(tmp_path, KEY)
    content = json.loads(file.read_text())
    middle = len(content["sealed"]) // 2
    flipped = "A" if content["sealed"][middle] != "A" else "B"
    content["sealed"] = content["sealed"][:middle] + flipped + content["sealed"][middle + 1 :]
    file.write_text(json.dumps(content))

    with pytest.raises(FailedError, match="damaged"):
        SealedFile.read(file).open(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "{}",
        '{"kind": "other", "version": 1, "salt": null, "sealed": ""}',
        '{"kind": "feedamp-tokens", "version": 1, "salt": 5, "sealed": "x"}',
        "\ufeff",
        "[" * 100_000,
    ],
)
def test_what_is_no_export_is_one_clear_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(text)

    with pytest.raises(FailedError, match="is not a file of 'feedamp tokens export'"):
        SealedFile.read(file)


def test_bytes_that_are_no_text_are_no_export(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(FailedError, match="is not a file"):
        SealedFile.read(file)


def test_a_file_of_a_later_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    file = file_of(tmp_path, KEY)
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2}))

    with pytest.raises(FailedError, match="Upgrade"):
        SealedFile.read(file)


def test_a_missing_file_and_a_folder_are_told_apart_from_damage(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(FailedError, match="cannot be read"):
            SealedFile.read(path)


def test_a_folder_that_is_missing_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="cannot be written"):
        write_new(tmp_path / "missing" / "tokens.json", "x")


@pytest.mark.parametrize("text", ["", "short", "ü" * 44, "A" * 43])
def test_a_key_file_without_a_key_says_how_to_make_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)

    with pytest.raises(MisuseError, match="feedamp keygen"):
        Lock.from_key_file(path)


def test_a_key_file_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="cannot be read"):
        Lock.from_key_file(tmp_path / "missing")


@pytest.mark.parametrize("typed", ["", "\n", "eleven char\n"])
def test_a_short_passphrase_is_refused_for_an_export(tmp_path: Path, typed: str) -> None:
    result = run("tokens", "export", str(tmp_path / "tokens.json"), stdin=typed)

    assert (result.exit_code, result.stderr) == (
        2,
        "Error: The passphrase needs 12 characters at least.\n",
    )


def test_no_lock_shows_what_it_holds() -> None:
    assert KEY.key not in repr(KEY)
    assert WORDS.passphrase not in repr(WORDS)


def test_a_file_that_exists_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    file.write_text("another export")

    with pytest.raises(FailedError, match="cannot be written"):
        write_new(file, "x")
    assert file.read_text() == "another export"
