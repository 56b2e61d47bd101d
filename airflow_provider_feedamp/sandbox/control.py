"""The client of the control surface ``POST /_sandbox/{action}``, for tests of this or of another process."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    Lines = Sequence[dict[str, Any]] | None

Json = dict[str, Any]

PREFIX = "/_sandbox/"


class SandboxControl:
    """Play the seller, set faults and read counters of a running sandbox; usable from any thread.

    Each method sends one action, and raises ValueError when the sandbox refuses it.

    :param url: Any URL of the sandbox; only its host and port are used.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80

    def counters(self) -> Json:
        """Return what was asked and how it was answered, as ``docs/sandbox.md`` describes it."""
        return dict(self._send("counters"))

    def reset(self) -> None:
        """Begin again as the sandbox was started: same sellers, same refresh tokens, nothing else."""
        self._send("reset")

    def settings(self) -> Json:
        """Return the switches."""
        return dict(self._send("settings"))

    def change(self, **settings: Any) -> Json:
        """Change some switches, for example ``change(rotation="grace")``."""
        self._send("change", changes=settings)
        return self.settings()

    def fault(self, kind: str, **details: Any) -> None:
        """Add a fault, for example ``fault("http_error", on="data", status=429, wait=1, times=3)``.

        :param kind: ``drop``, ``lose_answer``, ``slow``, ``http_error`` or ``odd_body``.
        :param details: The fields of :class:`airflow_provider_feedamp.sandbox.faults.Fault`.
        """
        self._send("faults", fault={"kind": kind, **details})

    def clear_faults(self) -> None:
        """Take all faults back."""
        self._send("clear-faults")

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock forward."""
        self._send("advance", seconds=seconds)

    def now(self) -> str:
        """Return the sandbox's time in ISO 8601."""
        return str(self._send("now"))

    def sellers(self) -> dict[str, int]:
        """Return how many orders each seller has."""
        return dict(self._send("sellers"))

    def connect(self, seller: str) -> str:
        """Return a refresh token of a new authorisation by the seller, who is created if unknown."""
        return str(self._send("connect", seller=seller))

    def authorize(self, seller: str) -> str:
        """Return a single-use authorisation code."""
        return str(self._send("authorize", seller=seller))

    def refresh_tokens(self, seller: str) -> list[str]:
        """Return the seller's usable refresh tokens, oldest first."""
        return list(self._send("tokens", seller=seller)["refresh_tokens"])

    def access_tokens(self, seller: str) -> list[str]:
        """Return the seller's usable access tokens, oldest first."""
        return list(self._send("tokens", seller=seller)["access_tokens"])

    def expire(self, seller: str) -> int:
        """End the seller's access tokens and return how many there were."""
        return int(self._send("expire", seller=seller))

    def revoke(self, seller: str) -> int:
        """End the seller's refresh tokens, as if the seller had withdrawn; return how many there were."""
        return int(self._send("revoke", seller=seller))

    def orders(self, seller: str) -> list[Json]:
        """Return the seller's orders, with their hidden times and ``raw``, the JSON as it was sent."""
        return list(self._send("orders", seller=seller))

    def acknowledge(self, seller: str, mp_order_number: str) -> Json:
        """Let the seller confirm an order; return the order."""
        return self._play("acknowledge", seller, mp_order_number)

    def ship(self, seller: str, mp_order_number: str, **details: Any) -> Json:
        """Let the seller ship all that is pending, or ``mp_line_number=`` and ``quantity=`` of it."""
        return self._play("ship", seller, mp_order_number, **details)

    def cancel(self, seller: str, mp_order_number: str, **details: Any) -> Json:
        """Let the seller cancel all that is pending, or ``mp_line_number=`` and ``quantity=`` of it."""
        return self._play("cancel", seller, mp_order_number, **details)

    def resolve_errors(self, seller: str, mp_order_number: str) -> Json:
        """Let the seller resolve an order's errors; return the order."""
        return self._play("resolve-errors", seller, mp_order_number)

    def refunds(self, seller: str) -> list[Json]:
        """Return the seller's refunds with ``created_at``, the instant that the API hides."""
        return list(self._send("refunds", seller=seller))

    def create_refund(self, seller: str, mp_order_number: str, lines: Lines = None, **details: Any) -> Json:
        """Let the seller refund lines of an order; return the refund.

        :param lines: ``{"mp_line_number": …}`` each, and what shall differ from the whole line at its unit
            price: ``refund_quantity``, ``item_refund``, …; None for all of the first line.
        :param details: ``notes`` and ``reason``.
        """
        return self._play("create-refund", seller, mp_order_number, lines=lines, **details)

    def resolve_refund_errors(self, seller: str, feedamp_refund_id: int | str) -> Json:
        """Let the seller resolve a refund's errors; return the refund."""
        return dict(self._send("resolve-refund-errors", seller=seller, feedamp_refund_id=feedamp_refund_id))

    def returns(self, seller: str) -> list[Json]:
        """Return the seller's returns with the hidden ``placed_at`` and ``raw``, the JSON as it was sent."""
        return list(self._send("returns", seller=seller))

    def authorize_return(
        self, seller: str, mp_order_number: str, mp_return_number: str, rma: str | None = None
    ) -> Json:
        """Let the seller authorise a return, under its own number or a made-up one; return the return."""
        return self._play(
            "authorize-return", seller, mp_order_number, mp_return_number=mp_return_number, rma=rma
        )

    def enter_return_amounts(
        self, seller: str, mp_order_number: str, mp_return_number: str, lines: Lines = None
    ) -> Json:
        """Let the seller enter what is refunded, which also clears the return's errors; return the return.

        :param lines: ``{"mp_return_line_number": …}`` each, with ``principal_refund_amount`` and
            ``shipping_refund_amount``; None for the principal that was asked for.
        """
        return self._play(
            "enter-return-amounts", seller, mp_order_number, mp_return_number=mp_return_number, lines=lines
        )

    def _play(self, action: str, seller: str, mp_order_number: str, **details: Any) -> Json:
        return dict(self._send(action, seller=seller, mp_order_number=mp_order_number, **details))

    def _send(self, action: str, **body: Any) -> Any:
        """Make one call on a connection of its own, past any proxy that the environment names."""
        connection = HTTPConnection(self._host, self._port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", PREFIX + action, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(f"The sandbox refused POST /{action} with {response.status}: {answer}")
        return answer
