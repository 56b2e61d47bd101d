"""Python's way to the control surface, for tests: of the same process or of a sandbox that runs elsewhere."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]


class SandboxControl:
    """Play the seller, set faults and read counters of a running sandbox; usable from any thread.

    :param url: Any URL of the sandbox; only its host and port are used.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80

    def counters(self) -> Json:
        """Return what was asked and how it was answered, as ``docs/sandbox.md`` describes it."""
        return self._object("GET", "/counters")

    def reset(self) -> None:
        """Begin again as the sandbox was started: same sellers, same refresh tokens, nothing else."""
        self._call("POST", "/reset")

    def settings(self) -> Json:
        """Return the switches."""
        return self._object("GET", "/settings")

    def change(self, **settings: Any) -> Json:
        """Change some switches, for example ``change(rotation="grace")``."""
        return self._object("PATCH", "/settings", settings)

    def fault(self, kind: str, **details: Any) -> None:
        """Add a fault, for example ``fault("http_error", on="data", status=429, wait=1, times=3)``.

        :param kind: ``drop``, ``lose_answer``, ``slow``, ``http_error`` or ``odd_body``.
        :param details: The fields of :class:`airflow_provider_feedamp.sandbox.faults.Fault`.
        """
        self._call("POST", "/faults", {"kind": kind, **details})

    def clear_faults(self) -> None:
        """Take all faults back."""
        self._call("DELETE", "/faults")

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward."""
        self._call("POST", "/clock", {"advance_seconds": seconds})

    def now(self) -> str:
        """Return the sandbox's time in ISO 8601."""
        return str(self._object("GET", "/clock")["now"])

    def sellers(self) -> dict[str, int]:
        """Return how many orders each seller has."""
        counts: dict[str, int] = self._object("GET", "/sellers")["sellers"]
        return counts

    def connect(self, seller: str) -> str:
        """Return a refresh token of a new authorisation by the seller, who is created if unknown."""
        return str(self._object("POST", "/sellers", {"seller": seller})["refresh_token"])

    def authorize(self, seller: str) -> str:
        """Return a single-use authorisation code."""
        return str(self._seller("POST", seller, "/authorize")["code"])

    def refresh_tokens(self, seller: str) -> list[str]:
        """Return the seller's usable refresh tokens, oldest first."""
        tokens: list[str] = self._seller("GET", seller, "/tokens")["refresh_tokens"]
        return tokens

    def access_tokens(self, seller: str) -> list[str]:
        """Return the seller's usable access tokens, oldest first."""
        tokens: list[str] = self._seller("GET", seller, "/tokens")["access_tokens"]
        return tokens

    def expire(self, seller: str) -> int:
        """End the seller's access tokens and return how many there were."""
        return int(self._seller("POST", seller, "/expire")["expired"])

    def revoke(self, seller: str) -> int:
        """End the seller's refresh tokens, as if the seller had withdrawn; return how many there were."""
        return int(self._seller("POST", seller, "/revoke")["revoked"])

    def orders(self, seller: str) -> list[Json]:
        """Return the seller's orders, with their hidden times and ``raw``, the JSON as it was sent."""
        orders: list[Json] = self._seller("GET", seller, "/orders")["orders"]
        return orders

    def acknowledge(self, seller: str, mp_order_number: str) -> Json:
        """Let the seller confirm an order; return the order."""
        return self._act(seller, "acknowledge", mp_order_number, {})

    def ship(self, seller: str, mp_order_number: str, **details: Any) -> Json:
        """Let the seller ship all that is pending, or ``mp_line_number=`` and ``quantity=`` of it."""
        return self._act(seller, "ship", mp_order_number, details)

    def cancel(self, seller: str, mp_order_number: str, **details: Any) -> Json:
        """Let the seller cancel all that is pending, or ``mp_line_number=`` and ``quantity=`` of it."""
        return self._act(seller, "cancel", mp_order_number, details)

    def resolve_errors(self, seller: str, mp_order_number: str) -> Json:
        """Let the seller resolve an order's errors; return the order."""
        return self._act(seller, "resolve-errors", mp_order_number, {})

    def refunds(self, seller: str) -> list[Json]:
        """Return the seller's refunds with ``created_at``, the instant that the API hides."""
        refunds: list[Json] = self._seller("GET", seller, "/refunds")["refunds"]
        return refunds

    def create_refund(
        self, seller: str, mp_order_number: str, lines: Sequence[Json] | None = None, **details: Any
    ) -> Json:
        """Let the seller refund lines of an order; return the refund.

        :param seller: The seller.
        :param mp_order_number: The order.
        :param lines: ``{"mp_line_number": …}`` each, and what shall differ from the whole line at its unit
            price: ``refund_quantity``, ``item_refund``, …; None for all of the first line.
        :param details: ``notes`` and ``reason``.
        """
        return self._act(seller, "create-refund", mp_order_number, {"lines": lines, **details})

    def resolve_refund_errors(self, seller: str, feedamp_refund_id: int | str) -> Json:
        """Let the seller resolve a refund's errors; return the refund."""
        body = {"feedamp_refund_id": feedamp_refund_id}
        return self._seller("POST", seller, "/resolve-refund-errors", body)

    def returns(self, seller: str) -> list[Json]:
        """Return the seller's returns with the hidden ``placed_at`` and ``raw``, the JSON as it was sent."""
        returns: list[Json] = self._seller("GET", seller, "/returns")["returns"]
        return returns

    def authorize_return(
        self, seller: str, mp_order_number: str, mp_return_number: str, rma: str | None = None
    ) -> Json:
        """Let the seller authorise a return, under its own number or a made-up one; return the return."""
        details = {"mp_return_number": mp_return_number, "rma": rma}
        return self._act(seller, "authorize-return", mp_order_number, details)

    def enter_return_amounts(
        self,
        seller: str,
        mp_order_number: str,
        mp_return_number: str,
        lines: Sequence[Json] | None = None,
    ) -> Json:
        """Let the seller enter what is refunded, which also clears the return's errors; return the return.

        :param seller: The seller.
        :param mp_order_number: The order.
        :param mp_return_number: The return.
        :param lines: ``{"mp_return_line_number": …}`` each, with ``principal_refund_amount`` and
            ``shipping_refund_amount``; None for the principal that was asked for.
        """
        details = {"mp_return_number": mp_return_number, "lines": lines}
        return self._act(seller, "enter-return-amounts", mp_order_number, details)

    def _act(self, seller: str, action: str, number: str, details: Mapping[str, Any]) -> Json:
        return self._seller("POST", seller, f"/{action}", {"mp_order_number": number, **details})

    def _seller(self, method: str, seller: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        return self._object(method, f"/sellers/{quote(seller, safe='')}{path}", body)

    def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        answer: Json = self._call(method, path, body)
        return answer

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make one call on a connection of its own, past any proxy that the environment names."""
        connection = HTTPConnection(self._host, self._port, timeout=30)
        try:
            content = json.dumps(body or {}).encode() if method in ("POST", "PATCH") else None
            connection.request(method, f"/_sandbox{path}", content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(f"The sandbox refused {method} {path} with {response.status}: {answer}")
        return answer
