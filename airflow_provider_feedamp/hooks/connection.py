"""Reads the Airflow connection, field by field, into what the provider works with."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_feedamp.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

DEFAULT_BASE_URL = "https://marketplace-order-api.feedamp.feedonomics.com/api/v1"
_DEFAULT_PATH = "/api/v1"
#: What Feedonomics recommends as the most for the lists of its other order APIs; this one names no limit.
DEFAULT_LIST_REQUESTS_PER_SECOND = 2.0
#: What Airflow 2's form has in place of a secret (``airflow.www.views``), and what comes back unchanged.
AIRFLOW_2_MASK = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"
#: What Airflow shows for a secret. Airflow 2.11 stores its own when somebody empties the only extra: spent as
#: a new token, it would cost the seller a visit.
_MASKS = ("***", AIRFLOW_2_MASK)
#: Where tokens live, which can name code to import, is for the deployment to decide, not for a connection.
_DEPLOYMENTS_DECISIONS = ("token_store", "token_store_conn_id")


@dataclass(frozen=True, slots=True)
class FeedAmpConnection:
    """A connection of type ``feedamp``, checked and normalised.

    :param conn_id: Its id.
    :param base_url: Base URL of the API, without a slash at the end.
    :param client_id: The marketplace's Client ID.
    :param client_secret: The marketplace's Client Secret.
    :param refresh_token: A seller's refresh token, if the connection holds one.
    :param seller: The seller that the refresh token belongs to.
    :param request_encoding: How the token endpoint is asked: ``json`` or ``form``.
    :param timeout: Seconds, or None for the default.
    :param requests_per_second: Pace of one seller's calls, or None for none.
    :param list_requests_per_second: Pace of one seller's list calls; 0 for none.
    """

    conn_id: str
    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    seller: str
    request_encoding: str
    timeout: float | None
    requests_per_second: float | None
    list_requests_per_second: float

    @property
    def token_url(self) -> str:
        """Return the URL of the token endpoint."""
        return f"{self.base_url}/access_token"


def read_connection(conn_id: str) -> FeedAmpConnection:
    """Read and check a connection.

    :param conn_id: Its id.
    :raises ConfigurationError: naming the connection, the field and what to write there.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        conn = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        raise ConfigurationError(
            f"There is no Airflow connection {conn_id!r} that can be read. Create it with type FeedAMP, "
            "Client ID, Client Secret and the seller's refresh token (Admin > Connections, or "
            f"{variable}). If it is there, its URI or JSON is malformed: the port must be a number, and the "
            "extras a JSON object."
            + (
                " And this process is no task and no command of Airflow's: from Airflow 3.1 on those alone "
                f"see the connections of the metadata database. A script of your own needs {variable} in its "
                "environment, or a secrets backend."
                if _is_script()
                else ""
            )
        ) from error
    return _Reader(conn_id, conn).read()


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed access to one connection's fields; errors name the field and never quote a value."""

    conn_id: str
    conn: Connection = field(repr=False)

    def read(self) -> FeedAmpConnection:
        if self.conn.conn_type != "feedamp":
            self._refuse(f"has type {self.conn.conn_type!r}", "Set its type (conn_type) to feedamp.")
        extra = self._extra()
        for name in _DEPLOYMENTS_DECISIONS:
            if extra.get(name):
                self._refuse(
                    f"has an extra {name}, and where tokens live is not a connection's decision",
                    f"Take it out, and set [feedamp] {name} (AIRFLOW__FEEDAMP__{name.upper()}) wherever "
                    "Airflow runs.",
                )
        encoding = self._text_extra(extra, "request_encoding") or "json"
        if encoding not in ("json", "form"):
            self._refuse("has an extra request_encoding that is unknown", "Use json or form.")
        list_pace = self._number_extra(extra, "list_requests_per_second", zero=True)
        refresh_token = self._text_extra(extra, "refresh_token")
        return FeedAmpConnection(
            conn_id=self.conn_id,
            base_url=self._base_url(),
            client_id=self._required(self.conn.login, "Client ID (login)"),
            client_secret=self._required(self.conn.password, "Client Secret (password)"),
            refresh_token=None if refresh_token in _MASKS else refresh_token,
            seller=self._text_extra(extra, "seller") or "default",
            request_encoding=encoding,
            timeout=self._number_extra(extra, "timeout"),
            requests_per_second=self._number_extra(extra, "requests_per_second"),
            list_requests_per_second=DEFAULT_LIST_REQUESTS_PER_SECOND if list_pace is None else list_pace,
        )

    def _base_url(self) -> str:
        host = (self.conn.host or "").strip()
        if not host:
            return DEFAULT_BASE_URL
        try:
            url = urlsplit(host)
            port = url.port or self.conn.port
        except ValueError:
            self._refuse("has a host that is no URL", f"Write the base URL: {DEFAULT_BASE_URL}.")
        if not url.scheme or not url.hostname or any(character.isspace() for character in host):
            # What was pasted into the wrong field could be a secret.
            shown = host if len(host) <= 80 and "." in host and "@" not in host else "..."
            self._refuse(
                f"has the host {shown!r}, which is no URL",
                f"Write the base URL with its scheme, such as {DEFAULT_BASE_URL} (in a connection URI escape "
                "it: https%3A%2F%2F...), or leave the host empty for that default.",
            )
        if url.username or url.password or url.query or url.fragment:
            self._refuse(
                "has a host with user, query or fragment", f"Write the base URL alone: {DEFAULT_BASE_URL}."
            )
        name = url.hostname or ""
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(name)):
            self._refuse(
                f"has a host with scheme {url.scheme}",
                "Use https: tokens and secrets travel to it (http is accepted for a loopback address only).",
            )
        if ":" in name:
            name = f"[{name}]"
        default_port = {"https": 443, "http": 80}[url.scheme]
        netloc = name if port in (None, default_port) else f"{name}:{port}"
        # A connection URI puts what follows the host into the schema.
        path = url.path.strip("/") or (self.conn.schema or "").strip("/")
        return urlunsplit((url.scheme, netloc, f"/{path}" if path else _DEFAULT_PATH, "", ""))

    def _extra(self) -> dict[str, Any]:
        text = self.conn.extra
        if not text:
            return {}
        try:
            extra = json.loads(text)
        except ValueError:
            extra = None
        if not isinstance(extra, dict):
            self._refuse("has extras that are no JSON object", 'Write them as {"refresh_token": "..."}.')
        return extra

    def _required(self, value: str | None, name: str) -> str:
        if not value or not value.strip():
            self._refuse(f"has no {name}", "Feedonomics gives it to the marketplace at onboarding.")
        return value.strip()

    def _text_extra(self, extra: dict[str, Any], name: str) -> str | None:
        value = extra.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self._refuse(f"has an extra {name} that is a {type(value).__name__}", "Write it as a text.")
        return value.strip() or None

    def _number_extra(self, extra: dict[str, Any], name: str, *, zero: bool = False) -> float | None:
        value = extra.get(name)
        if value is None or value == "":
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and (number > 0 or (zero and number == 0))):
            kind = "number from 0 up" if zero else "positive number"
            self._refuse(f"has an extra {name} that is no {kind}", "Write it as a number.")
        return number

    def _refuse(self, what: str, what_to_do: str) -> NoReturn:
        # No cause: it could quote the value, and that may be a secret.
        raise ConfigurationError(f"The Airflow connection {self.conn_id!r} {what}. {what_to_do}") from None


def _is_script() -> bool:
    """Say whether this is neither a task, nor a trigger, nor a command of Airflow's, on Airflow 3."""
    if find_spec("airflow.sdk") is None or os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "server":
        return False
    return not hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
