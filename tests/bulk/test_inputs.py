from __future__ import annotations

import importlib
import os
import uuid
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.bulk.source import FileInput, ListInput
from airflow_provider_feedamp.bulk.sql import QueryInput
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.ndjson"
    path.write_text('{"n": 1}\n{"n": 2}\n')
    return path


def test_a_file_that_stays_the_same_is_known_again(file: Path) -> None:
    assert FileInput(str(file)).fingerprint() == FileInput(str(file)).fingerprint() is not None


def test_a_file_that_was_changed_is_not(file: Path, tmp_path: Path) -> None:
    before = FileInput(str(file)).fingerprint()
    stat = file.stat()

    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = FileInput(str(file)).fingerprint()
    file.write_text('{"n": 1}\n{"n": 22}\n')
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    longer = FileInput(str(file)).fingerprint()
    other = FileInput(str(file.rename(tmp_path / "other.ndjson"))).fingerprint()

    assert len({before, touched, longer, other}) == 4


def test_a_file_on_other_storage_is_known_by_the_marks_of_that_storage() -> None:
    importlib.import_module(ObjectStoragePath.__module__).attach("memory", fs=MemoryFileSystem())
    path = f"memory://bucket/{uuid.uuid4()}/orders.ndjson"

    def write() -> str | None:
        with open_storage(path, "wb", "Test") as stream:
            stream.write(b'{"n": 1}\n')
        return FileInput(path).fingerprint()

    first = write()
    assert first == FileInput(path).fingerprint() is not None
    assert write() != first


@pytest.mark.parametrize("path", ["/nowhere/orders.ndjson", "nowhere://bucket/orders.ndjson"])
def test_what_cannot_be_looked_at_has_no_fingerprint_and_is_told_when_it_is_opened(path: str) -> None:
    source = FileInput(path)

    assert source.fingerprint() is None
    with pytest.raises(InputError):
        source.open()


def test_a_file_says_how_much_of_it_has_been_read(tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_bytes(b'{"n": 1}\n' * 200_000)
    source = FileInput(str(path))
    source.fingerprint()

    assert source.share() == 0.0
    orders = source.open()
    next(orders)
    share = source.share()
    assert share is not None
    assert 0.0 < share < 0.5
    assert len(list(orders)) == 199_999
    assert source.share() == 1.0


def test_the_first_orders_are_passed_over_and_lines_keep_their_numbers(file: Path) -> None:
    assert [found.line for found in FileInput(str(file)).open(skip=1)] == [2]
    assert list(FileInput(str(file)).open(skip=2)) == []


def test_a_list_cannot_be_known_again() -> None:
    source = ListInput([{"n": 1}])

    assert (source.fingerprint(), source.share(), source.name) == (None, None, "the list in orders")
    assert [found.order for found in source.open()] == [{"n": 1}]


def test_the_name_of_a_query_is_its_connection_and_not_its_text() -> None:
    assert QueryInput("select 'Jane'", "shop").name == "the query on connection shop"
