from __future__ import annotations

import pytest

from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.stores.contract import TokenStoreContract


class TestMemoryStore(TokenStoreContract):
    processes = 0

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
