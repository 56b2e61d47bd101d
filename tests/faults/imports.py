"""The imports that meet faults: a world to import into, sellers, and what is done to each one's import."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import re
import signal
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from tests.airflow_parts import whole_airflow
from tests.airflow_runs import AirflowHome, TaskEnd
from tests.faults import importer
from tests.faults.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.control import SandboxControl

#: Seconds that FeedAMP stops, and that it answers 429.
STOPPED, BUSY = 20.0, 60.0
PATIENCE = 240.0
KILLS, TASK_KILLS = 6, 2
COUNTS = re.compile(r"read (\d+), placed (\d+) \(inserted (\d+), updated (\d+)\), rejected (\d+)")


@dataclass
class World:
    """A FeedAMP, orders to import, and a place to put things."""

    connections: dict[str, dict[str, Any]]
    control: SandboxControl
    source: Path
    total: int
    home: AirflowHome

    @property
    def base_url(self) -> str:
        return str(self.connections["plain"]["host"])


class Seller:
    """One seller and the imports that go there."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.folder = world.source.parent / name
        self.folder.mkdir()
        self.rejects = self.folder / "rejects.ndjson"
        self.checkpoint = self.folder / "checkpoint"
        self.codes: list[int | None] = []
        #: How many calls of all sellers FeedAMP refused with 429, and how long all took.
        self.refused, self.seconds = 0, 0.0

    @cached_property
    def token(self) -> str:
        connection = self.world.connections[self.name]
        form = {"grant_type": "refresh_token", "refresh_token": connection["extra"]["refresh_token"]}
        form |= {"client_id": connection["login"], "client_secret": connection["password"]}
        answer = requests.post(f"{self.world.base_url}/access_token", data=form, timeout=30)
        return str(answer.json()["access_token"])

    def begin(self, **changes: Any) -> Any:
        """Start an import in a process of its own."""
        job = {
            "base_url": self.world.base_url,
            "token": self.token,
            "source": str(self.world.source),
            "rejects": str(self.rejects),
            "checkpoint": str(self.checkpoint),
            "log": str(self.folder / f"{len(self.codes)}.log"),
        }
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=importer.place, args=(job | changes,), daemon=True)
        process.start()
        return process

    def wait(self, process: Any) -> None:
        process.join(PATIENCE)
        self.codes.append(process.exitcode)

    def run(self, **changes: Any) -> None:
        self.wait(self.begin(**changes))

    def until_holds(self, share: float) -> None:
        """Wait until FeedAMP holds this share of the orders."""
        enough = share * self.world.total
        until(lambda: self.world.control.sellers()[self.name] >= enough, f"{share:.0%} of {self.name}")

    def log(self, number: int = -1) -> str:
        paths = sorted(self.folder.glob("*.log"), key=lambda path: int(path.stem))
        return paths[number].read_text() if paths else ""

    @cached_property
    def stored(self) -> dict[str, str]:
        return {each["mp_order_number"]: each["raw"] for each in self.world.control.orders(self.name)}

    def tries(self) -> str:
        """Return how each try ended, what it said about FeedAMP, and its last account."""
        logs = [self.log(number) for number in range(len(self.codes))]
        lost, paused = (
            sum(log.count(words) for log in logs) for words in ("gave no answer", "all calls wait")
        )
        accounts = [[each[0] for each in COUNTS.finditer(log)][-1:] for log in logs]
        return (
            f"ended {self.codes}, {lost} without an answer, {paused} pauses, {self.refused} 429; {accounts}"
        )

    def account(self, number: int = -1) -> tuple[int, ...]:
        """Return what the last account in a log says: read, placed, inserted, updated, rejected."""
        return tuple(int(each) for each in COUNTS.findall(self.log(number))[-1])


def plain(seller: Seller) -> None:
    """No fault: what all others have to come to."""
    seller.run()


def stops(seller: Seller) -> None:
    """FeedAMP is gone for a while: connections are cut, and then refused."""
    relay = Relay(urlsplit(seller.world.base_url).port or 0)
    process = seller.begin(base_url=f"http://127.0.0.1:{relay.port}/api/v1")
    seller.until_holds(0.3)
    relay.stop()
    time.sleep(STOPPED)
    relay.start()
    seller.wait(process)
    relay.stop()


def busy(seller: Seller) -> None:
    """FeedAMP answers 429 for a minute, and does not say how long to wait."""
    process = seller.begin()
    seller.until_holds(0.3)
    refuse = {"on": "place_order", "seller": seller.name, "times": None}
    seller.world.control.fault("http_error", status=429, **refuse)
    time.sleep(BUSY)
    seller.refused = seller.world.control.counters()["refused"]["429"]
    seller.world.control.clear_faults()
    drop_answers(seller.world, "drops")
    seller.wait(process)


def drops(seller: Seller) -> None:
    """Every tenth connection is cut after FeedAMP has done what it was asked."""
    drop_answers(seller.world, seller.name)
    seller.run()


def drop_answers(world: World, name: str) -> None:
    world.control.fault("lose_answer", on="place_order", seller=name, every=10, times=None)


def disk_full(seller: Seller) -> None:
    """The rejects file can grow no more; then there is room again."""
    seller.run(room=30_000)
    seller.run()


def cut_off(seller: Seller) -> None:
    """The source ends in the middle of a line; later the whole of it is there."""
    whole = seller.world.source.read_bytes()
    source = seller.folder / "orders.ndjson"
    end = whole.index(b"\n", len(whole) // 2)
    source.write_bytes(whole[: end + 200])
    seller.run(source=str(source))
    source.write_bytes(whole)
    seller.run(source=str(source))


def cut_off_gzip(seller: Seller) -> None:
    """A compressed source is cut off; later the whole of it is there."""
    source = seller.folder / "orders.ndjson.gz"
    packed = gzip.compress(seller.world.source.read_bytes())
    source.write_bytes(packed[: len(packed) // 2])
    seller.run(source=str(source))
    source.write_bytes(packed)
    seller.run(source=str(source))


def killed(seller: Seller) -> None:
    """The process is killed at random moments, and each next one goes on."""
    rng = random.Random(5)
    for kill in range(KILLS):
        process = seller.begin()
        seller.until_holds((kill + rng.random()) / (KILLS + 1))
        process.kill()
        seller.wait(process)
    seller.run()


def task_killed(seller: Seller) -> None:
    """The same in a whole Airflow: the process of the task is killed, and Airflow retries it."""
    rng = random.Random(6)
    settings = {"IMPORT_KILLED_FOLDER": str(seller.folder), "IMPORT_KILLED_SOURCE": str(seller.world.source)}
    home = seller.world.home
    pid = seller.folder / "pid"
    with whole_airflow(home, settings):
        for kill in range(TASK_KILLS):
            until(pid.exists, "the task runs")
            seller.until_holds((kill + rng.random()) / (TASK_KILLS + 1))
            os.kill(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()
            seller.codes.append(-signal.SIGKILL)
        until(lambda: task_state(home) in ("success", "failed"), "the task ends")
    seller.codes.append(0 if task_state(home) == "success" else 1)
    for path in home.path.rglob("attempt=*.log"):
        (seller.folder / path.name.removeprefix("attempt=")).write_text(path.read_text())


def task_state(home: AirflowHome) -> str:
    return home.tasks("feedamp_import_killed").get("place_orders", TaskEnd("none", 0)).state


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.2)


FAULTS: tuple[Callable[[Seller], None], ...] = (
    plain,
    stops,
    busy,
    drops,
    disk_full,
    cut_off,
    cut_off_gzip,
    killed,
    task_killed,
)
