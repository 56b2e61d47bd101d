from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.databases import pgbouncer
from tests.stores.fernet import forget_fernet_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["pgbouncer"]


@pytest.fixture(autouse=True)
def _forget_fernet_keys() -> Iterator[None]:
    """Let no test's keys reach the next one."""
    yield
    forget_fernet_keys()
