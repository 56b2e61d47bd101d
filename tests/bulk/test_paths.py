from __future__ import annotations

import errno
import os
import traceback
from typing import TYPE_CHECKING, NoReturn

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_feedamp.bulk.paths import (
    failure_text,
    local_path,
    loggable,
    open_storage,
    same_place,
    storage_path,
)
from airflow_provider_feedamp.exceptions import InputError, SourceUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("path", "log"),
    [
        ("/data/a?b#c.ndjson", "/data/a?b#c.ndjson"),
        ("s3://conn@bucket/a.ndjson", "s3://conn@bucket/a.ndjson"),
        ("ftp://user:hunter2@host/a.ndjson", "ftp://user:***@host/a.ndjson"),
        ("https://host/a.ndjson?sig=hunter2", "https://host/a.ndjson"),
        ("s3://bucket/a?b.ndjson", "s3://bucket/a?b.ndjson"),
    ],
)
def test_a_shown_path_has_no_password_and_no_signature(path: str, log: str) -> None:
    assert loggable(path) == log


def test_local_paths_are_made_absolute_and_other_storage_is_not_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert local_path("a b.ndjson") == str(tmp_path / "a b.ndjson")
    assert local_path("file:///data/a%20b#.ndjson") == "/data/a%20b#.ndjson"
    assert local_path("s3://bucket/a.ndjson") is None


@pytest.mark.parametrize("name", ["plain.ndjson", "a b%20ü#x?.ndjson", "with:colon@at.ndjson"])
@pytest.mark.parametrize("form", ["{folder}/{name}", "file://{folder}/{name}", "{name}"])
def test_a_local_file_opens_without_a_connection_in_each_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"content")

    with open_storage(form.format(folder=tmp_path, name=name), "rb", "Source") as file:
        assert file.read() == b"content"


def test_a_scheme_without_a_file_system_is_a_clear_error() -> None:
    with pytest.raises(InputError, match=r"^Source nowhere://bucket/a\.ndjson: .*no file system"):
        storage_path("nowhere://bucket/a.ndjson", "Source")


def test_the_same_file_is_known_through_links_urls_and_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a.ndjson"
    file.touch()
    (tmp_path / "soft").symlink_to(file)
    os.link(file, tmp_path / "hard")

    for other in ("a.ndjson", "soft", "hard", f"file://{file}", f"{tmp_path}/./x/../a.ndjson"):
        assert same_place(str(file), other)
    assert same_place("s3://one@bucket/a", "s3://bucket/a")
    assert not same_place(str(file), str(tmp_path / "b.ndjson"))
    assert not same_place("s3://bucket/a", "s3://bucket/b")


class Signed(RuntimeError):
    """An HTTP client's error: it quotes the URL that it was given."""


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError("Access Denied"), "Access Denied"),
        (TimeoutError(), "TimeoutError: "),
        (Signed("403, url='https://host/a.ndjson?sig=hunter2'"), "Signed: 403, url='https://host/a.ndjson'"),
        (Signed("No answer."), "Signed: No answer"),
    ],
)
def test_what_a_storage_said_is_shown_without_a_signature(error: Exception, text: str) -> None:
    assert failure_text(error) == text


def test_a_web_server_that_fails_is_told_without_a_signature_in_its_cause_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "https://host/a.ndjson?sig=hunter2"

    class Web(MemoryFileSystem):  # type: ignore[misc]
        def open(self, path: str, *_: object, **options: object) -> NoReturn:
            raise Signed(f"503, url='{url}'")

    monkeypatch.setattr(ObjectStoragePath, "fs", property(lambda _: Web()))

    with pytest.raises(SourceUnavailableError, match=r"^Source https://host/a\.ndjson cannot be") as caught:
        open_storage(url, "rb", "Source")

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
