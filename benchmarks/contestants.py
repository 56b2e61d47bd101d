"""What a user would place orders with instead: each way in a process of its own, which prints what it took.

All of them have loaded Airflow, as a task has: in a process that is that large, everything takes longer.

``python -m benchmarks.contestants urllib3 --url http://127.0.0.1:1234/api/v1 --orders orders.ndjson``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from airflow.providers.common.compat.sdk import BaseHook

from benchmarks.orders import number_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Orders before the ones that count: connections are opened and code is warm by then.
WARM_UP = 300


class Meter:
    """Takes the time and the processor time of a part of the program."""

    def __enter__(self) -> Meter:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu = time.process_time() - self._cpu
        self.seconds = time.perf_counter() - self._began


def main() -> None:
    """Place the orders and print seconds, processor seconds and the number of orders as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["urllib3", "requests", "aiohttp", "http-hook"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=32)
    arguments = parser.parse_args()
    BaseHook.get_connection("bench_http")
    bodies = arguments.orders.read_bytes().splitlines()
    headers = {
        "Authorization": f"Bearer {new_token(arguments.url)}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "benchmark",
    }
    if arguments.name == "aiohttp":
        meter = asyncio.run(in_tasks(arguments.url, headers, bodies, arguments.workers))
    elif arguments.name == "http-hook":
        send = http_hook(headers)
        send(number_of(0), bodies[0])
        with Meter() as meter:
            for position, body in enumerate(bodies):
                send(number_of(position), body)
    else:
        way = {"urllib3": with_urllib3, "requests": with_requests}[arguments.name]
        send = way(arguments.url, headers, arguments.workers)
        in_threads(send, bodies[:WARM_UP], arguments.workers)
        with Meter() as meter:
            in_threads(send, bodies, arguments.workers)
    print(json.dumps({"orders": len(bodies), "seconds": meter.seconds, "cpu": meter.cpu}))


def new_token(url: str) -> str:
    """Return an access token of the benchmarks' server."""
    with urlopen(Request(f"{url}/access_token", data=b"{}", method="POST")) as answer:  # noqa: S310
        return str(json.load(answer)["access_token"])


def in_threads(send: Callable[[str, bytes], None], bodies: list[bytes], workers: int) -> None:
    """Send all orders with so many threads, each of which takes the next one when it is free."""
    todo = iter(enumerate(bodies))  # taking the next one is one step of the interpreter: no lock is needed

    def work() -> None:
        for position, body in todo:
            send(number_of(position), body)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def with_urllib3(url: str, headers: dict[str, str], workers: int) -> Callable[[str, bytes], None]:
    """Return a bare PUT of urllib3."""
    import urllib3

    pool = urllib3.PoolManager(maxsize=workers)

    def send(number: str, body: bytes) -> None:
        expect_created(pool.request("PUT", f"{url}/orders/{number}", body=body, headers=headers).status)

    return send


def with_requests(url: str, headers: dict[str, str], workers: int) -> Callable[[str, bytes], None]:
    """Return a bare PUT of a requests session."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=workers))

    def send(number: str, body: bytes) -> None:
        answer = session.put(f"{url}/orders/{number}", data=body, headers=headers, timeout=60)
        expect_created(answer.status_code)

    return send


def http_hook(headers: dict[str, str]) -> Callable[[str, bytes], None]:
    """Return a PUT of Airflow's HTTP provider, on the connection ``bench_http``."""
    from airflow.providers.http.hooks.http import HttpHook

    hook = HttpHook(method="PUT", http_conn_id="bench_http")

    def send(number: str, body: bytes) -> None:
        expect_created(hook.run(f"orders/{number}", data=body.decode(), headers=headers).status_code)

    return send


async def in_tasks(url: str, headers: dict[str, str], bodies: list[bytes], workers: int) -> Meter:
    """Send all orders with aiohttp in so many tasks of one thread."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=workers)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work(todo: enumerate[bytes]) -> None:
            for position, body in todo:
                async with session.put(f"{url}/orders/{number_of(position)}", data=body) as answer:
                    await answer.read()
                    expect_created(answer.status)

        async def send_all(orders: list[bytes]) -> None:
            todo = enumerate(orders)
            await asyncio.gather(*(work(todo) for _ in range(workers)))

        await send_all(bodies[:WARM_UP])
        with Meter() as meter:
            await send_all(bodies)
    return meter


def expect_created(status: int) -> None:
    """Refuse to measure anything but orders that were taken."""
    if status != 201:
        raise RuntimeError(f"The benchmarks' server answered {status}")


if __name__ == "__main__":
    main()
