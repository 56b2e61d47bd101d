"""Assets that stand for what a seller does, so that DAGs can be scheduled on it."""

from __future__ import annotations

import hashlib
from typing import Any, Literal, get_args
from urllib.parse import quote

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_feedamp.exceptions import InputError

#: What a seller's asset can stand for.
Resource = Literal["fulfillments", "refunds", "returns", "authorization"]

# An asset's URI may have 1500 characters. A part that would be longer ends in "!" and a digest: quote()
# leaves no "!" in any part, so that it cannot be taken for another.
_LONGEST_PART = 400
_DIGEST = 32


def feedamp_asset(
    seller: str,
    resource: Resource,
    *,
    feedamp_conn_id: str = "feedamp_default",
) -> Asset:
    """Return the asset of one resource of one seller; on Airflow 3 a watcher updates it.

    A DAG with this asset as its schedule runs when the seller has done something, see
    :class:`airflow_provider_feedamp.triggers.events.FeedAmpActivityTrigger`. On Airflow 2 nothing watches
    it: it is updated by tasks that have it as an outlet. The same call returns the same asset in every file,
    with the same watcher: the configuration says how often FeedAMP is asked.

    :param seller: Your name for the seller's account.
    :param resource: ``fulfillments`` (the seller shipped or cancelled), ``refunds`` (there are some to pay),
        ``returns`` (the seller authorised one, or entered its amounts) or ``authorization`` (a person has to
        authorise the seller).
    :param feedamp_conn_id: The FeedAMP connection. Default ``feedamp_default``.
    :raises InputError: There is no such resource, or the seller's name is empty.
    """
    if resource not in get_args(Resource):
        raise InputError(f"resource is {resource!r}: choose one of {', '.join(get_args(Resource))}.")
    if not isinstance(seller, str) or not seller.strip():
        raise InputError("seller is empty: an asset belongs to one seller, name it.")
    uri = f"feedamp://{_part(feedamp_conn_id)}/{_part(seller)}/{resource}"
    return Asset(uri=uri, **_watchers(uri, resource, feedamp_conn_id, seller))


def _part(name: str) -> str:
    part = quote(name, safe="")
    if len(part) <= _LONGEST_PART:
        return part
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{part[: _LONGEST_PART - _DIGEST - 1]}!{digest}"


def _watchers(uri: str, resource: str, feedamp_conn_id: str, seller: str) -> dict[str, Any]:
    """Return the watchers as an argument of ``Asset``, or nothing where Airflow has none."""
    try:
        from airflow.sdk import AssetWatcher
    except ImportError:  # Airflow 2
        return {}
    from airflow_provider_feedamp.triggers.events import FeedAmpActivityTrigger

    # Airflow keeps one set of watchers per asset, and each file that is parsed replaces it by its own. With
    # an argument that the URI does not say, two files would undo each other's watch for ever.
    trigger = FeedAmpActivityTrigger(resource, feedamp_conn_id, seller)
    return {"watchers": [AssetWatcher(name=uri, trigger=trigger)]}
