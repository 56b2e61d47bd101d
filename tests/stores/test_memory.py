from __future__ import annotations

import pytest

from airflow_provider_feedamp.stores.contract import TokenStoreContract
from airflow_provider_feedamp.stores.memory import MemoryStore


class TestMemoryStore(TokenStoreContract):
    processes = 0

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
