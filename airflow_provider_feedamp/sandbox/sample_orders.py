"""Orders to try an import with: those of a marketplace, some of them bad if asked for."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

PRODUCTS = (("MUG-01", "Mug", 7.95), ("TEA-12", "Tea, 12 bags", 4.5), ("KET-03", "Kettle", 39.0))


def write_orders(path: Path, count: int, *, bad: bool = False) -> int:
    """Write orders, one JSON object a line; the same ones each time.

    :param path: The file; one that is there is replaced.
    :param count: How many good orders.
    :param bad: Whether to put bad lines among them, of each kind that marketplaces really send.
    :return: How many lines are bad.
    """
    dice = random.Random(2026)  # noqa: S311  (the same file every time, nothing secret)
    lines = [json.dumps(order(number, dice), ensure_ascii=False) for number in range(1, count + 1)]
    broken = bad_lines(dice) if bad else []
    for line in broken:
        lines.insert(dice.randrange(len(lines)), line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(broken)


def order(number: int, dice: random.Random) -> dict[str, Any]:
    """Return a good order; every fiftieth has a number that needs escaping in a URL."""
    name = f"DEMO/{number} ü%" if number % 50 == 0 else f"DEMO-{number:05}"
    person = f"Customer {number}"
    return {
        "mp_order_number": name,
        "sales_channel": "US",
        "currency": "USD",
        "purchase_date": f"2026-09-{dice.randint(1, 28):02}T{dice.randint(0, 23):02}:15:00Z",
        "marketplace_state": "AWAITING_SHIPMENT",
        "customer": {"full_name": person, "email": f"customer{number}@example.com"},
        "shipping_address": {
            "full_name": person,
            "address1": f"{number} Elm Street",
            "city": "Springfield",
            "state": "IL",
            "postal_code": "62704",
            "country_code": "USA",
        },
        "order_lines": [order_line(position, dice) for position in range(1, dice.randint(1, 4) + 1)],
    }


def order_line(position: int, dice: random.Random) -> dict[str, Any]:
    """Return one line of an order."""
    sku, name, price = dice.choice(PRODUCTS)
    return {
        "mp_line_number": str(position),
        "sku": sku,
        "product_name": name,
        "quantity": dice.randint(1, 5),
        "unit_price": price,
    }


def bad_lines(dice: random.Random) -> list[str]:
    """Return the kinds of bad line that marketplaces really send."""
    changes: tuple[dict[str, Any], ...] = (
        {"order_lines": [{**order_line(1, dice), "quantity": 0}]},
        {"order_lines": [{**order_line(1, dice), "quantity": -2}]},
        {"order_lines": []},
        {"marketplace_state": "ON_ITS_WAY"},
        {"purchase_date": "2026-09-01 10:00"},
        {"mp_order_number": "X" * 129},
        {"currency": None},
    )
    bad = [{**order(9000 + number, dice), **change} for number, change in enumerate(changes)]
    return [*(json.dumps(each) for each in bad), '{"mp_order_number": "DEMO-09100", "sales_chan']
