"""From a checked connection and Airflow's configuration to the custodian of one seller's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import conf, mask_secret

from airflow_provider_feedamp.exceptions import ConfigurationError
from airflow_provider_feedamp.stores import open_store
from airflow_provider_feedamp.tokens.custodian import TokenCustodian
from airflow_provider_feedamp.tokens.exchange import TokenEndpoint
from airflow_provider_feedamp.tokens.models import TokenKey
from airflow_provider_feedamp.tokens.windows import Windows

if TYPE_CHECKING:
    from airflow_provider_feedamp.hooks.connection import FeedAmpConnection

_SECTION = "feedamp"
#: A lease must hold two calls, the pause between them and the writes.
_LONGEST_DEADLINE = 20.0


def custodian_of(connection: FeedAmpConnection, seller: str) -> TokenCustodian:
    """Return the custodian of a seller's tokens.

    :param connection: The connection that the client, and perhaps the seller's refresh token, come from.
    :param seller: Your name for the seller.
    :raises ConfigurationError: if the ``[feedamp]`` configuration cannot be used.
    """
    for secret in (connection.client_secret, connection.refresh_token):
        if secret:
            mask_secret(secret)
    return TokenCustodian(
        key=TokenKey(connection.token_url, connection.client_id, seller),
        endpoint=TokenEndpoint(
            url=connection.token_url,
            client_id=connection.client_id,
            client_secret=connection.client_secret,
            encoding=connection.request_encoding,
            deadline=_seconds("token_deadline", 15.0, at_most=_LONGEST_DEADLINE),
            connection=f"the Airflow connection {connection.conn_id!r}",
        ),
        store=open_store(
            conf.get(_SECTION, "token_store", fallback=None) or "variable",
            conf.get(_SECTION, "token_store_conn_id", fallback=None) or None,
        ),
        # The connection's refresh token belongs to the seller that the connection names, and to nobody else.
        seed=connection.refresh_token if seller == connection.seller else None,
        windows=Windows(
            advisory=_seconds("advisory_window", 600.0),
            jitter=_seconds("advisory_jitter", 120.0),
            mandatory=_seconds("mandatory_window", 120.0),
        ),
        lock_wait=_seconds("lock_wait", 90.0),
        on_secret=mask_secret,
    )


def _seconds(option: str, default: float, *, at_most: float = 86400.0) -> float:
    value = conf.get(_SECTION, option, fallback=None)
    if value is None or value == "":
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= at_most:
        raise ConfigurationError(
            f"The Airflow configuration [{_SECTION}] {option} must be a number of seconds from 0 to "
            f"{at_most:.0f}."
        )
    return seconds
