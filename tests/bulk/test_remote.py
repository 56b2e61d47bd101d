from __future__ import annotations

import gzip
import importlib
import json
import uuid

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_feedamp.bulk.parse import parse_order
from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.exceptions import InputError
from tests.bulk.feedamps import read_orders


@pytest.fixture
def bucket() -> str:
    """Attach a storage that is not local, as a provider does for its scheme, and return a place in it."""
    attach = importlib.import_module(ObjectStoragePath.__module__).attach
    attach("memory", fs=MemoryFileSystem())
    return f"memory://bucket/{uuid.uuid4()}"


def write(path: str, content: bytes) -> None:
    with open_storage(path, "wb", "Test") as file:
        file.write(content)


def read(path: str) -> bytes:
    with open_storage(path, "rb", "Test") as file:
        return file.read()


def test_a_source_is_read_from_any_storage(bucket: str) -> None:
    write(f"{bucket}/orders.ndjson.gz", gzip.compress(b'{"n": 1}\n\n{"n": 3}'))

    assert [(found.line, found.order) for found in read_orders(f"{bucket}/orders.ndjson.gz")] == [
        (1, {"n": 1}),
        (3, {"n": 3}),
    ]


def test_a_source_that_no_storage_has_is_named(bucket: str) -> None:
    with pytest.raises(InputError, match=r"^Source memory://bucket/.*/orders\.ndjson does not exist\.$"):
        read_orders(f"{bucket}/orders.ndjson")


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz"])
def test_rejects_are_written_to_any_storage_and_replace_those_of_an_earlier_run(
    bucket: str, suffix: str
) -> None:
    path = f"{bucket}/deep/rejects{suffix}"

    for line in (1, 2):
        with RejectsFile(path) as rejects:
            rejects.add(parse_order(line, b'{"n": 1}'), "why")

    content = read(path) if suffix == ".ndjson" else gzip.decompress(read(path))
    assert [json.loads(each)["line"] for each in content.splitlines()] == [2]


def test_without_a_reject_no_storage_keeps_the_file_of_an_earlier_run(bucket: str) -> None:
    write(f"{bucket}/rejects.ndjson", b"of an earlier run\n")

    with RejectsFile(f"{bucket}/rejects.ndjson"):
        pass

    with pytest.raises(FileNotFoundError):
        read(f"{bucket}/rejects.ndjson")
