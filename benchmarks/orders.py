"""The orders that the benchmarks place: generated, about 700 bytes each, as a marketplace's really are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def number_of(position: int) -> str:
    """Return the order number of the order at a position."""
    return f"BENCH-{position:08}"


def order_line(position: int) -> bytes:
    """Return one order as a line of an NDJSON file has it."""
    person = f"Customer {position}"
    order: dict[str, Any] = {
        "mp_order_number": number_of(position),
        "sales_channel": "US",
        "currency": "USD",
        "purchase_date": "2026-09-01T12:15:00Z",
        "marketplace_state": "AWAITING_SHIPMENT",
        "customer": {"full_name": person, "email": f"customer{position}@example.com"},
        "shipping_address": {
            "full_name": person,
            "address1": f"{position} Elm Street",
            "city": "Springfield",
            "state": "IL",
            "postal_code": "62704",
            "country_code": "USA",
        },
        "order_lines": [
            {
                "mp_line_number": str(line),
                "sku": f"SKU-{line}",
                "product_name": "Mug with a handle",
                "quantity": line,
                "unit_price": 7.95,
            }
            for line in (1, 2)
        ],
    }
    return json.dumps(order, separators=(",", ":")).encode()


def write_orders(path: Path, orders: int) -> Path:
    """Write so many orders, one to a line, and return the path."""
    path.write_bytes(b"".join(order_line(position) + b"\n" for position in range(orders)))
    return path
