"""A secrets backend, as a user's own: ``[secrets] backend`` names it by its dotted path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class BaseSecretsBackend:
        """Stand in for Airflow's class, which lives in another place in each version."""
else:
    from airflow.secrets import BaseSecretsBackend


class Vault(BaseSecretsBackend):
    """Serves the connections and options that it was configured with."""

    def __init__(
        self, connections: dict[str, str] | None = None, options: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.connections = connections or {}
        self.options = options or {}

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return self.connections.get(conn_id)

    def get_config(self, key: str) -> str | None:
        return self.options.get(key)
