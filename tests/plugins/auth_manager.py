"""Airflow's simple auth manager, with one more person: who may read connections, and not edit them."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class ReaderAuthManager(SimpleAuthManager):
    """The simple auth manager has no role that reads connections and cannot edit them; others have."""

    def is_authorized_connection(self, *, method: Any, user: Any, details: Any = None) -> bool:
        if user.get_name() == "reader":
            return bool(method == "GET")
        return bool(super().is_authorized_connection(method=method, user=user, details=details))
