"""Sources, rejects and exports on a real S3 API, which fails as one does: through botocore and s3fs."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.bulk.paths import BLOCK
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.bulk.source import parse_order
from airflow_provider_feedamp.exceptions import (
    DestinationError,
    FeedAmpError,
    InputError,
    RejectsFileError,
    SourceUnavailableError,
)
from airflow_provider_feedamp.transfers.ndjson_file import ndjson_file
from tests.bulk.feedamps import read_orders

if TYPE_CHECKING:
    from tests.s3 import S3

pytestmark = pytest.mark.once

LINE = b'{"n": "%s"}\n' % (b"x" * 1_000)
ENTRY = {"n": "x" * 1_000}
MUCH = 12_000  # Lines that are more than one block.


def export(path: str, error: BaseException | None = None) -> None:
    with ndjson_file(path) as file:
        for _ in range(MUCH):
            file.add(ENTRY)
        if error is not None:
            raise error


def reject(rejects: RejectsFile, count: int) -> None:
    with rejects:
        for number in range(count):
            rejects.add(parse_order(number, LINE), "why")


def largest(s3: S3, pattern: str) -> int:
    """Return the largest number, or the longest of the ranges, that a header of the requests names."""
    found = re.findall(pattern, "".join(s3.wire.heads))
    return max(int(last) - int(first or 1) + 1 for first, last in found)


def test_a_source_is_read_in_blocks_of_8_mib(s3: S3) -> None:
    source = s3.put("orders.ndjson", LINE * 3 * MUCH)

    assert sum(1 for _ in read_orders(source)) == 3 * MUCH
    assert BLOCK == 8 * 1024 * 1024
    assert BLOCK <= largest(s3, r"Range: bytes=(\d+)-(\d+)") <= 1.1 * BLOCK


def test_exports_and_rejects_are_written_in_blocks_of_8_mib(s3: S3) -> None:
    export(s3.place("a.ndjson"))
    by_exports = largest(s3, r"Content-Length: ()(\d+)")
    s3.wire.mend()
    reject(RejectsFile(s3.place("b.ndjson")), MUCH)
    by_rejects = largest(s3, r"Content-Length: ()(\d+)")

    assert BLOCK <= by_exports <= 1.1 * BLOCK
    assert BLOCK <= by_rejects <= 1.1 * BLOCK
    assert (s3.names(), s3.uploads()) == (["a.ndjson", "b.ndjson"], [])
    for name in s3.names():
        assert sum(1 for _ in read_orders(s3.place(name))) == MUCH


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_source_whose_connection_is_cut_may_be_read_again(s3: S3, suffix: str) -> None:
    content = LINE * 10_000 if not suffix else gzip.compress(LINE * 10_000, compresslevel=0)
    source = s3.put(f"orders.ndjson{suffix}", content)
    s3.wire.cut_answers_after = 1_000_000

    with pytest.raises(
        SourceUnavailableError, match=r"^Source s3://lake/orders\.ndjson.* cannot be"
    ) as caught:
        list(read_orders(source))

    assert caught.value.retryable
    assert "Payload" in str(caught.value)


def test_a_source_whose_storage_is_away_is_told_from_one_that_is_not_there(s3: S3) -> None:
    with pytest.raises(InputError, match=r"^Source s3://lake/orders\.ndjson does not exist"):
        read_orders(s3.place("orders.ndjson"))

    source = s3.put("orders.ndjson", LINE)
    s3.wire.away_from = "HEAD /"
    with pytest.raises(SourceUnavailableError, match=r"^Source s3://lake/orders\.ndjson cannot be read now"):
        read_orders(source)


def test_rejects_whose_storage_is_away_end_the_import_before_it_begins(s3: S3) -> None:
    s3.wire.away_from = "HEAD /"
    rejects = RejectsFile(s3.place("r.ndjson"))

    with pytest.raises(
        RejectsFileError, match=r"^Rejects file s3://lake/r\.ndjson cannot .* Nothing was sent"
    ):
        rejects.__enter__()


def test_rejects_whose_storage_goes_away_end_the_import_and_leave_no_upload(s3: S3) -> None:
    s3.wire.away_from = "partNumber=1"
    rejects = RejectsFile(s3.place("r.ndjson"))

    with pytest.raises(
        RejectsFileError, match=r"^Rejects file s3://lake/r\.ndjson could not be written: Con"
    ):
        reject(rejects, MUCH)

    assert 0 < rejects.count < MUCH
    assert s3.uploads() == []


def test_rejects_that_cannot_be_closed_are_missing(s3: S3) -> None:
    words = (
        r"s3://nowhere/r\.ndjson could not be written: The specified bucket .* Of its 1 reject some may be"
    )

    with pytest.raises(RejectsFileError, match=words):
        reject(RejectsFile("s3://nowhere/r.ndjson"), 1)


@pytest.mark.parametrize(
    "away_from", ["HEAD /", "partNumber=1", "partNumber=2", "?uploads", "POST /lake/a.ndjson?uploadId"]
)
def test_an_export_whose_storage_goes_away_leaves_nothing_and_may_be_tried_again(
    s3: S3, away_from: str
) -> None:
    s3.wire.away_from = away_from

    with pytest.raises(DestinationError, match=r"^Destination s3://lake/a\.ndjson c") as caught:
        export(s3.place("a.ndjson"))

    assert caught.value.retryable
    assert (s3.names(), s3.uploads()) == ([], [])


@pytest.mark.parametrize("error", [FeedAmpError("no token"), KeyboardInterrupt()], ids=["error", "signal"])
def test_an_export_that_fails_leaves_the_file_of_the_run_before(s3: S3, error: BaseException) -> None:
    path = s3.put("a.ndjson", b"of an earlier run\n")

    with pytest.raises(type(error)):
        export(path, error)

    assert s3.call("get_object", Key="a.ndjson")["ContentLength"] == 18
    assert s3.uploads() == []


def test_an_export_without_entries_is_an_empty_object(s3: S3) -> None:
    with ndjson_file(s3.place("a.ndjson")):
        pass

    assert s3.call("head_object", Key="a.ndjson")["ContentLength"] == 0
    assert s3.uploads() == []
