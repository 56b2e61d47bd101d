"""Where token records live: one protocol, several stores."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from airflow_provider_feedamp.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_provider_feedamp.stores.base import TokenStore

#: The stores that come with this package, by the name that the configuration uses.
STORES = {
    "memory": "airflow_provider_feedamp.stores.memory.MemoryStore",
    "sql": "airflow_provider_feedamp.stores.sql.SqlStore",
    "variable": "airflow_provider_feedamp.stores.variable.VariableStore",
}


@cache
def open_store(name: str, conn_id: str | None = None) -> TokenStore:
    """Return this process's store of that name; the same one each time.

    :param name: A name out of ``STORES``, or the dotted path of a class of your own.
    :param conn_id: The Airflow connection that the store keeps its records behind, if it needs one.
    :raises ConfigurationError: if there is no such store.
    """
    module, _, attribute = STORES.get(name, name).rpartition(".")
    try:
        factory = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(sorted(STORES))
        raise ConfigurationError(
            f"There is no token store {name!r}. Use one of {known}, or the dotted path of a class of your "
            "own."
        ) from error
    return cast("TokenStore", factory(conn_id))
