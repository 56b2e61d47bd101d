"""Run a local FeedAMP: ``python -m airflow_provider_feedamp.sandbox``."""

from __future__ import annotations

import argparse
import json
import random
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

_NEEDED = ("fastapi", "starlette", "uvicorn", "pydantic")
_SAMPLES = 20
_PRODUCTS = (("MUG-01", "Mug", 7.95), ("TEA-12", "Tea, 12 bags", 4.5), ("KET-03", "Kettle", 39.0))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT.

    :param argv: Arguments; the process's own when None.
    :return: The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _run(_settings(arguments), arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        return _fail(f"The sandbox needs {error.name}: pip install 'airflow-provider-feedamp[sandbox]'")
    except ValueError as error:
        return _fail(str(error))
    except OSError as error:
        if error.filename is not None:
            return _fail(f"The sandbox cannot write {error.filename}: {error.strerror}")
        return _fail(
            f"The sandbox cannot serve on port {arguments.port}: {error.strerror}; port 0 takes a free one"
        )


def _run(settings: SandboxSettings, arguments: argparse.Namespace) -> int:
    from airflow_provider_feedamp.sandbox.server import serve

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    ready_file: Path | None = arguments.ready_file
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    if arguments.orders is not None:
        write_orders(arguments.orders, _SAMPLES)
    with serve(settings, port=arguments.port) as sandbox:
        connections = {seller: sandbox.connection(seller) for seller in settings.sellers}
        print(f"FeedAMP sandbox is ready on {sandbox.base_url} (end it with Ctrl-C)")
        for seller, connection in connections.items():
            print(f"Connection of seller {seller}:")
            print(f"  export AIRFLOW_CONN_FEEDAMP_DEFAULT={shlex.quote(json.dumps(connection))}")
        if arguments.orders is not None:
            print(f"Sample orders to import: {_SAMPLES} in {arguments.orders.resolve()}")
        sys.stdout.flush()
        if ready_file is not None:
            partial = ready_file.with_name(ready_file.name + ".partial")
            partial.touch(mode=0o600)
            partial.write_text(json.dumps({"base_url": sandbox.base_url, "connections": connections}))
            partial.replace(ready_file)
        ended.wait()
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_feedamp.sandbox",
        description="Serve a local FeedAMP on 127.0.0.1 for tests and demos.",
    )
    add = parser.add_argument
    add("--port", type=_port, default=8470, help="port to listen on; 0 takes a free one (default 8470)")
    add(
        "--seller",
        action="append",
        dest="sellers",
        help="a seller's name; repeatable (default hooli, globex)",
    )
    add("--client-id", help="default demo-client")
    add("--client-secret", help="default demo-secret")
    add("--rotation", choices=("static", "rotate", "revoke_family", "grace"), help="default rotate")
    add("--token-ttl", type=int, dest="access_token_ttl", help="seconds (default 3600)")
    add("--approval", choices=("page", "auto", "deny"), help="default page")
    other = "any other setting, for example cursor_end=empty"
    add("--set", action="append", default=[], metavar="NAME=VALUE", help=other)
    add("--orders", type=Path, help=f"file to write {_SAMPLES} sample orders to; an existing one is replaced")
    add("--ready-file", type=Path, help="file to write when it serves: base URL and connections as JSON")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _settings(arguments: argparse.Namespace) -> SandboxSettings:
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

    known = SandboxSettings.model_fields
    settings = SandboxSettings.checked(
        {name: value for name, value in vars(arguments).items() if name in known and value is not None}
    )
    # The value is text for a setting that is a text, and JSON for all others.
    pairs = [text.partition("=")[::2] for text in arguments.set]
    texts = [name for name, _ in pairs if isinstance(getattr(settings, name, None), str)]
    settings.update({name: value if name in texts else _json(value) for name, value in pairs})
    return settings


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


def write_orders(path: Path, count: int, *, bad: bool = False) -> int:
    """Write orders, one JSON object a line; the same ones each time.

    :param path: The file; one that is there is replaced.
    :param count: How many good orders.
    :param bad: Whether to put bad lines among them, of each kind that marketplaces really send.
    :return: How many lines are bad.
    """
    dice = random.Random(2026)  # noqa: S311  (the same file every time, nothing secret)
    lines = [json.dumps(_order(number, dice), ensure_ascii=False) for number in range(1, count + 1)]
    broken = _bad_lines(dice) if bad else []
    for line in broken:
        lines.insert(dice.randrange(len(lines)), line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(broken)


def _order(number: int, dice: random.Random) -> dict[str, Any]:
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
        "order_lines": [_order_line(position, dice) for position in range(1, dice.randint(1, 4) + 1)],
    }


def _order_line(position: int, dice: random.Random) -> dict[str, Any]:
    """Return one line of an order."""
    sku, name, price = dice.choice(_PRODUCTS)
    return {
        "mp_line_number": str(position),
        "sku": sku,
        "product_name": name,
        "quantity": dice.randint(1, 5),
        "unit_price": price,
    }


def _bad_lines(dice: random.Random) -> list[str]:
    """Return the kinds of bad line that marketplaces really send."""
    changes: tuple[dict[str, Any], ...] = (
        {"order_lines": [{**_order_line(1, dice), "quantity": 0}]},
        {"order_lines": [{**_order_line(1, dice), "quantity": -2}]},
        {"order_lines": []},
        {"marketplace_state": "ON_ITS_WAY"},
        {"purchase_date": "2026-09-01 10:00"},
        {"mp_order_number": "X" * 129},
        {"currency": None},
    )
    bad = [{**_order(9000 + number, dice), **change} for number, change in enumerate(changes)]
    return [*(json.dumps(each) for each in bad), '{"mp_order_number": "DEMO-09100", "sales_chan']


if __name__ == "__main__":
    sys.exit(main())
