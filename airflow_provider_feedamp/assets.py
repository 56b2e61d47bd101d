"""Assets that stand for what a seller does, for DAGs to be scheduled on; and how lineage names things."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_feedamp.bulk.paths import local_path, loggable
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The scheme of their URIs; the manifest names it.
SCHEME = "feedamp"

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
    return create_asset(seller=seller, resource=resource, feedamp_conn_id=feedamp_conn_id)


def create_asset(
    *,
    seller: str,
    resource: Resource,
    feedamp_conn_id: str = "feedamp_default",
    extra: dict[str, Any] | None = None,
) -> Asset:
    """Return the asset of :func:`feedamp_asset`; Airflow's lineage of hooks calls it by the manifest.

    ``seller``, ``resource`` and ``feedamp_conn_id`` are those of :func:`feedamp_asset`.

    :param extra: What Airflow adds to the asset. Default: nothing.
    :raises InputError: As :func:`feedamp_asset` does.
    """
    if resource not in get_args(Resource):
        raise InputError(f"resource is {resource!r}: choose one of {', '.join(get_args(Resource))}.")
    if not isinstance(seller, str) or not seller.strip():
        raise InputError("seller is empty: an asset belongs to one seller, name it.")
    uri = account_uri(feedamp_conn_id, seller, resource)
    return Asset(uri=uri, extra=extra, **_watchers(uri, resource, feedamp_conn_id, seller))


def account_uri(feedamp_conn_id: str, seller: str, resource: str) -> str:
    """Return the URI of what a seller's account holds of one resource; ``feedamp_conn_id`` leads to it."""
    return f"{SCHEME}://{_part(feedamp_conn_id)}/{_part(seller)}/{resource}"


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


def dataset_name(path: str) -> tuple[str, str]:
    """Return how OpenLineage calls a file or an asset: namespace and name, without user and password."""
    if (local := local_path(path)) is not None:
        return "file", local
    scheme, _, rest = loggable(path).partition("://")  # "#" and "?" belong to the name of an object
    place, _, name = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}", name.lstrip("/") or "/"


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Any:
    """Return an asset of ours as OpenLineage's dataset; the manifest names this function.

    :param asset: One whose scheme is ``feedamp``.
    :param lineage_context: What Airflow adds; not used.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(*dataset_name(asset.uri))


def operator_lineage(
    task: Any, read: Iterable[str], written: Mapping[str, tuple[int, int | None]]
) -> Any | None:
    """Return what OpenLineage gets to know of a task; None without Airflow's provider for it.

    :param task: Its own inlets and outlets are named too: Airflow leaves them out beside what a task says.
    :param read: Paths and URIs of what it has read.
    :param written: By path or URI the lines or orders that it has written, and the bytes if they are known.
    """
    try:
        from airflow.providers.common.compat.openlineage import facet
        from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None

    def with_declared(found: list[Any], declared: Iterable[Any]) -> list[Any]:
        assets = (translate_airflow_asset(each, None) for each in declared if isinstance(each, Asset))
        named = {(each.namespace, each.name) for each in found}
        return found + [each for each in assets if each and (each.namespace, each.name) not in named]

    outputs = []
    for path, (rows, size) in written.items():
        statistics = facet.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=size)
        name = dataset_name(path)
        outputs.append(facet.OutputDataset(*name, outputFacets={"outputStatistics": statistics}))
    inputs = [facet.InputDataset(*dataset_name(path)) for path in read]
    return OperatorLineage(
        inputs=with_declared(inputs, task.inlets), outputs=with_declared(outputs, task.outlets)
    )
