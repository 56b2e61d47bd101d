from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import s3 as s3_server
from tests.bulk.conftest import bucket
from tests.operators.conftest import feedamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.s3 import S3

__all__ = ["bucket", "feedamp"]


@pytest.fixture(scope="module")
def running_s3() -> Iterator[S3]:
    for needed in ("flask", "flask_cors", "moto", "s3fs"):
        pytest.importorskip(needed)
    with s3_server.serve() as running:
        yield running


@pytest.fixture
def s3(running_s3: S3) -> S3:
    """Make an empty bucket what s3:// names."""
    running_s3.empty()
    running_s3.wire.mend()
    s3_server.attach(running_s3.wire.port)
    return running_s3
