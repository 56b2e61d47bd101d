from __future__ import annotations

import gzip
import io
import json
import os
import tracemalloc
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.exceptions import DestinationError, InputError
from airflow_provider_feedamp.transfers.ndjson_file import ndjson_file

if TYPE_CHECKING:
    from pathlib import Path

EARLIER = b"of an earlier run\n"


class Patient(MemoryFileSystem):  # type: ignore[misc]
    """A storage that shows a file only when it is committed, as object storages do."""

    def _open(self, path: str, mode: str = "rb", autocommit: bool = True, **options: Any) -> Any:
        if mode != "wb":
            return super()._open(path, mode, **options)
        assert not autocommit
        return MemoryFile(self, self._strip_protocol(path))


@pytest.fixture(params=["local", "shows at once", "shows when committed"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a place on each kind of storage."""
    if request.param == "local":
        return str(tmp_path)
    storage = Patient() if request.param == "shows when committed" else MemoryFileSystem()
    monkeypatch.setattr(ObjectStoragePath, "fs", property(lambda _: storage))
    return f"memory://bucket/{uuid.uuid4()}"


def write(path: str, *values: Any, error: type[BaseException] | None = None) -> None:
    with ndjson_file(path) as file:
        for value in values:
            file.add(value)
        if error is not None:
            raise error


def read(path: str) -> bytes | None:
    try:
        with open_storage(path, "rb", "Test") as file:
            return file.read()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 1.1, 1e300, None, True, {"b": ""}], "big": 12345678901234567890},
        {"text": 'ü 商店 😀   \r\n \t \x00 "\\/'},
        {"half a pair": "\ud83d", "\udc00": 1},
        {},
    ],
)
def test_each_value_is_one_line_that_reads_back_the_same(place: str, value: dict[str, Any]) -> None:
    write(f"{place}/a.ndjson", value, value)

    content = read(f"{place}/a.ndjson")

    assert content is not None
    assert content.count(b"\n") == 2
    assert [json.loads(line) for line in content.split(b"\n")[:2]] == [value, value]


def test_the_count_is_of_lines_and_the_bytes_are_those_of_the_file(place: str) -> None:
    for name in ("a.jsonl", "A.NDJSON.GZ"):
        with ndjson_file(f"{place}/{name}") as file:
            for number in range(30_000):
                file.add({"n": number})

        content = read(f"{place}/{name}")
        assert content is not None
        assert (file.count, file.bytes) == (30_000, len(content))
        plain = gzip.decompress(content) if name.lower().endswith(".gz") else content
        assert plain.splitlines()[-1] == b'{"n":29999}'


def test_the_same_lines_make_the_same_compressed_file(place: str) -> None:
    write(f"{place}/a.ndjson.gz", {"a": 1})
    write(f"{place}/b.ndjson.gz", {"a": 1})

    assert read(f"{place}/a.ndjson.gz") == read(f"{place}/b.ndjson.gz")


@pytest.mark.parametrize("lines", [1, 30_000])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_file_that_was_not_finished(
    place: str, suffix: str, lines: int, error: type[BaseException]
) -> None:
    path = f"{place}/a.ndjson{suffix}"

    with pytest.raises(error):
        write(path, *({"n": number} for number in range(lines)), error=error)

    assert read(path) is None
    assert "://" in place or os.listdir(place) == []


def test_what_another_thread_adds_after_a_failure_goes_nowhere(place: str) -> None:
    with suppress(ZeroDivisionError), ndjson_file(f"{place}/a.ndjson") as file:
        raise ZeroDivisionError

    file.add({"a": "x" * 300_000})

    assert read(f"{place}/a.ndjson") is None


def test_a_local_file_of_an_earlier_run_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(EARLIER)

    with ndjson_file(str(path)) as file:
        file.add({"a": 1})
        assert path.read_bytes() == EARLIER

    assert path.read_bytes() == b'{"a":1}\n'
    assert os.listdir(tmp_path) == ["a.ndjson"]


@pytest.mark.parametrize("place", ["shows when committed"], indirect=True)
def test_a_file_that_shows_when_it_is_committed_stands_until_then_too(place: str) -> None:
    path = f"{place}/a.ndjson"
    write(path, {"a": 1})

    with pytest.raises(ZeroDivisionError):
        write(path, {"a": 2}, error=ZeroDivisionError)

    assert read(path) == b'{"a":1}\n'


def test_a_local_file_can_be_read_by_its_owner_only_while_it_is_written_too(tmp_path: Path) -> None:
    with ndjson_file(str(tmp_path / "new/a.ndjson")) as file:
        file.add({"a": 1})
        modes = {each.stat().st_mode & 0o777 for each in (tmp_path / "new").iterdir()}

    assert modes == {0o600}
    assert (tmp_path / "new/a.ndjson").stat().st_mode & 0o777 == 0o600


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.ndjson").symlink_to(tmp_path / "there/b.ndjson")

    write(str(tmp_path / "a.ndjson"), {"a": 1})

    assert (tmp_path / "a.ndjson").is_symlink()
    assert (tmp_path / "there/b.ndjson").read_bytes() == b'{"a":1}\n'


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("orders.json", r"ends in one of: \.ndjson, \.jsonl, \.ndjson\.gz, \.jsonl\.gz"),
        ("orders.csv", "ends in one of"),
        ("orders.gz", "ends in one of"),
        ("https://host/a.ndjson?sig=hunter2", "^Destination https://host/a.ndjson must be a path or URL of"),
        ("https://host/a.ndjson", "of a storage"),
        ("nowhere://bucket/a.ndjson", "^Destination nowhere://bucket/a.ndjson: .*no file system"),
        ("/proc/no/a.ndjson", "cannot be written: .* Name a place that this worker may write"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(path: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        write(path)


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").mkdir()

    with pytest.raises(InputError, match="is a directory or a device"):
        write(str(tmp_path / "a.ndjson"))


@pytest.mark.parametrize("when", ["while it is written", "at the end"])
def test_a_storage_that_fails_is_told_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Full(io.FileIO):
        def write(self, *_: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", Full)

    with pytest.raises(DestinationError, match=r"a\.ndjson could not be written: No space left") as caught:
        write(str(tmp_path / "a.ndjson"), *([{"a": "x" * 1000}] * (1 if when == "at the end" else 1000)))

    assert caught.value.retryable
    assert os.listdir(tmp_path) == []


@pytest.mark.once
def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        with ndjson_file(str(tmp_path / "a.ndjson.gz")) as file:
            for _ in range(count):
                file.add({"a": "x" * 500})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)

    assert peak(20_000) < peak(2_000) + 100_000
