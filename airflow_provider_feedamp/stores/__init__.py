"""Where token records live: one protocol, several stores."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from typing import Any, cast

from airflow_provider_feedamp.exceptions import ConfigurationError
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

    :param name: A name out of ``STORES``, or the dotted path of a class of your own, as ``[feedamp]
        token_store`` has it. It is imported: it must never come from a connection.
    :param conn_id: The Airflow connection that the store keeps its records behind, if it needs one.
    :raises ConfigurationError: if there is no such store, or it does not keep the protocol of
        ``stores.base``; then nothing of it was called.
    """
    module, _, attribute = STORES.get(name, name).rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(sorted(STORES))
        raise ConfigurationError(
            f"There is no token store {name!r} ([feedamp] token_store). Use one of {known}, or the dotted "
            "path of a class of your own."
        ) from error
    missing = _missing(kind)
    if missing:
        raise ConfigurationError(
            f"{name!r} ([feedamp] token_store) is no token store: it has no {missing} as in the protocol of "
            f"{TokenStore.__module__}. Nothing of it was called."
        )
    return cast("TokenStore", kind(conn_id))


def _missing(kind: object) -> str:
    """Return what a token store must have and this object has not, or an empty text."""
    if not inspect.isclass(kind):
        return "class"
    if not _takes(kind, ["conn_id"], []):
        return "constructor that takes a connection id"
    for name, method in inspect.getmembers(TokenStore, inspect.isfunction):
        parameters = inspect.signature(method).parameters.values()
        needed = [each for each in parameters if each.default is each.empty]  # others may be left out
        by_name = [each.name for each in needed if each.kind is each.KEYWORD_ONLY]
        by_place = [each.name for each in needed if each.kind is each.POSITIONAL_OR_KEYWORD]
        if name.startswith("_"):
            continue
        own = getattr(kind, name, None)
        if own is method or not _takes(own, by_place, by_name):
            return f"method {name}({', '.join(by_place + by_name)})"
    return ""


def _takes(function: Any, by_place: list[str], by_name: list[str]) -> bool:
    """Say whether a function can be called with these parameters, by place and by name."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*by_place, **dict.fromkeys(by_name))
    except (TypeError, ValueError):
        return False
    return True
