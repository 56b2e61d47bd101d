"""Airflow's Fernet keys in tests; Airflow itself remembers them for the life of a process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def set_fernet_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Configure one key or several, as ``new,former``."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", value)
    forget_fernet_keys()


def forget_fernet_keys() -> None:
    """Let Airflow look into its configuration again."""
    for name in ("airflow.sdk.crypto", "airflow.models.crypto"):
        module: Any = sys.modules.get(name)
        if module is not None and hasattr(module.get_fernet, "cache_clear"):
            module.get_fernet.cache_clear()
        elif module is not None:
            module._fernet = None
