"""What Airflow reads of this provider without importing it."""

from __future__ import annotations

from typing import Any

_DOCS = "https://docs.feedonomics.com/developer/api-reference/rest/feed-amp-order-source-api"

# Airflow takes any URI of this scheme: no handler, so that none fails the import of a DAG file.
_ASSET_URIS = [
    {
        "schemes": ["feedamp"],
        "handler": None,
        "factory": "airflow_provider_feedamp.assets.create_asset",
        "to_openlineage_converter": "airflow_provider_feedamp.assets.convert_asset_to_openlineage",
    }
]
_OPTIONAL_TEXT = {"type": ["string", "null"]}
_OPTIONAL_SECRET = {"type": ["string", "null"], "format": "password"}
_OPTIONAL_NUMBER = {"type": ["number", "null"], "minimum": 0}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's manifest, one plain dictionary."""
    return {
        "package-name": "airflow-provider-feedamp",
        "name": "FeedAMP",
        # Airflow 3 takes the markup out and makes a link of the address: so it stands at the end.
        "description": "Import a marketplace's orders into its sellers' FeedAMP accounts, with OAuth token "
        "custody for many sellers: `Feedonomics FeedAMP <https://feedonomics.com/>`__",
        "integrations": [
            {
                "integration-name": "FeedAMP",
                "external-doc-url": _DOCS,
                "how-to-guide": [
                    "/docs/connection.md",
                    "/docs/authorise.md",
                    "/docs/place-orders.md",
                    "/docs/fulfillments.md",
                    "/docs/order-states.md",
                    "/docs/refunds.md",
                    "/docs/returns.md",
                    "/docs/event-driven.md",
                ],
                "logo": "/docs/integration-logos/FeedAMP.svg",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": "FeedAMP",
                "python-modules": [
                    "airflow_provider_feedamp.operators.access_token",
                    "airflow_provider_feedamp.operators.authorize_seller",
                    "airflow_provider_feedamp.operators.base",
                    "airflow_provider_feedamp.operators.changed_orders",
                    "airflow_provider_feedamp.operators.fulfillments",
                    "airflow_provider_feedamp.operators.order_errors",
                    "airflow_provider_feedamp.operators.order_states",
                    "airflow_provider_feedamp.operators.orders",
                    "airflow_provider_feedamp.operators.refunds",
                    "airflow_provider_feedamp.operators.returns",
                ],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "FeedAMP",
                # Airflow's own provider for object storage describes it.
                "target-integration-name": "Common IO",
                "how-to-guide": "/docs/transfers.md",
                "python-module": "airflow_provider_feedamp.transfers.object_storage",
            }
        ],
        "sensors": [
            {
                "integration-name": "FeedAMP",
                "python-modules": [
                    "airflow_provider_feedamp.sensors.base",
                    "airflow_provider_feedamp.sensors.orders",
                    "airflow_provider_feedamp.sensors.refunds",
                    "airflow_provider_feedamp.sensors.returns",
                ],
            }
        ],
        "triggers": [
            {
                "integration-name": "FeedAMP",
                "python-modules": [
                    "airflow_provider_feedamp.triggers.events",
                    "airflow_provider_feedamp.triggers.polling",
                ],
            }
        ],
        "hooks": [
            {
                "integration-name": "FeedAMP",
                "python-modules": [
                    "airflow_provider_feedamp.hooks.feedamp",
                    "airflow_provider_feedamp.hooks.auth",
                ],
            }
        ],
        "connection-types": [
            {
                "connection-type": "feedamp",
                "hook-class-name": "airflow_provider_feedamp.hooks.feedamp.FeedAmpHook",
                "hook-name": "FeedAMP",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port", "extra"],
                    "relabeling": {"host": "Base URL", "login": "Client ID", "password": "Client Secret"},
                    "placeholders": {
                        "host": "https://marketplace-order-api.feedamp.feedonomics.com/api/v1",
                        "login": "given by Feedonomics at onboarding",
                        "seller": "default",
                        "request_encoding": "json",
                    },
                },
                "conn-fields": {
                    "refresh_token": {
                        "label": "Refresh token",
                        "description": "Optional. The seller's refresh token. Read once; its successors live "
                        "in the token store.",
                        "schema": _OPTIONAL_SECRET,
                    },
                    "seller": {
                        "label": "Seller",
                        "description": "Optional. Your name for the seller that the refresh token belongs "
                        "to. Default: default.",
                        "schema": _OPTIONAL_TEXT,
                    },
                    "request_encoding": {
                        "label": "Request encoding",
                        "description": "Optional. How the token endpoint is asked: json or form. Default: "
                        "json.",
                        "schema": {**_OPTIONAL_TEXT, "enum": ["json", "form"]},
                    },
                    "timeout": {
                        "label": "Timeout",
                        "description": "Optional. Seconds to wait for a connection and for each answer. "
                        "Default: 10 and 60.",
                        "schema": _OPTIONAL_NUMBER,
                    },
                    "requests_per_second": {
                        "label": "Requests per second",
                        "description": "Optional. Pace of all calls of one seller in one process. Default: "
                        "no limit.",
                        "schema": _OPTIONAL_NUMBER,
                    },
                    "list_requests_per_second": {
                        "label": "List requests per second",
                        "description": "Optional. Pace of the list calls of one seller in one process. "
                        "Default: 2; 0 for no limit.",
                        "schema": _OPTIONAL_NUMBER,
                    },
                },
            }
        ],
        "asset-uris": _ASSET_URIS,
        "dataset-uris": _ASSET_URIS,  # Airflow 2 knows them by this name
        "cli": ["airflow_provider_feedamp.cli.main.get_feedamp_cli_commands"],
        "plugins": [
            {"name": "feedamp", "plugin-class": "airflow_provider_feedamp.plugins.sellers.FeedAmpPlugin"}
        ],
        "config": {
            "feedamp": {
                "description": "The FeedAMP provider: where tokens are kept, when they are renewed, and "
                "what FeedAMP does not document.",
                "options": {
                    "token_store": _option(
                        "Where token records live: ``variable``, ``sql``, ``memory`` or the dotted path of "
                        "a store class.",
                        "string",
                        default="variable",
                    ),
                    "token_store_conn_id": _option(
                        "Airflow connection that the token store keeps its records behind, if it needs one.",
                        "string",
                        example="my_store",
                    ),
                    "encryption_key": _option(
                        "Fernet keys, separated by commas, that token records are encrypted with: the first "
                        "writes, all read. ``feedamp keygen`` makes one.",
                        "string",
                        sensitive=True,
                    ),
                    "lease_bound": _option(
                        "Seconds that taking the lease of the store ``variable`` may last. The three lease "
                        "times are the same on all workers; change them while no worker runs.",
                        "float",
                        default="1.0",
                    ),
                    "lease_settle": _option(
                        "Seconds after which a lease of the store ``variable`` that was taken has settled; "
                        "more than lease_bound.",
                        "float",
                        default="1.5",
                    ),
                    "lease_ttl": _option(
                        "Seconds after which a lease of the store ``variable`` is void, when its worker was "
                        "killed.",
                        "float",
                        default="60",
                    ),
                    "advisory_window": _option(
                        "Seconds before its end from which one caller renews an access token ahead of time.",
                        "float",
                        default="600",
                    ),
                    "advisory_jitter": _option(
                        "Seconds by which the advisory window is spread over sellers.", "float", default="120"
                    ),
                    "mandatory_window": _option(
                        "Seconds before its end from which an access token is not used any more.",
                        "float",
                        default="120",
                    ),
                    "token_deadline": _option(
                        "Seconds that one call of the token endpoint may take in total; at most 20.",
                        "float",
                        default="15",
                    ),
                    "lock_wait": _option(
                        "Seconds to wait while another worker renews a token, before the task fails for a "
                        "retry.",
                        "float",
                        default="90",
                    ),
                    "watch_interval": _option(
                        "Seconds between two polls of each watched asset.", "float", default="60"
                    ),
                    "watch_look_back": _option(
                        "Seconds back that the first poll of a watched asset reaches when no mark is kept.",
                        "float",
                        default="3600",
                    ),
                    "refund_complete_path": _option(
                        "End of the path that marks a refund as complete. FeedAMP does not document it; "
                        "``/`` for no end.",
                        "string",
                        default="complete",
                    ),
                    "return_complete_path": _option(
                        "End of the path that marks a return as complete. FeedAMP does not document it; "
                        "``/`` for no end.",
                        "string",
                        default="complete",
                    ),
                },
            }
        },
    }


def _option(
    description: str,
    kind: str,
    *,
    default: str | None = None,
    example: str | None = None,
    sensitive: bool = False,
) -> dict[str, str | bool | None]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
        "sensitive": sensitive,
    }
