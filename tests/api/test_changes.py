"""Polling for changes: over any history of changes, lags and crashes, nothing is missed or told twice."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any, cast

import pytest

from airflow_provider_feedamp.api.changes import DEFAULT_OVERLAP, Watermark, activity, poll
from airflow_provider_feedamp.api.client import OrdersApi
from airflow_provider_feedamp.api.http import Answer
from airflow_provider_feedamp.exceptions import ApiError, InputError

pytestmark = pytest.mark.once

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LONGEST_LAG, LARGEST_SKEW = 200, 90  # together less than the overlap, 300 seconds
Told = list[tuple[str, int]]


@dataclass
class LaggingFeedAmp:
    """A seller's account whose lists show a change only some time after it happened.

    :param now: FeedAMP's clock; it goes on while a list is read.
    :param changes: Per order its changes: when it happened, and from when lists show it.
    """

    now: datetime = NOON
    changes: dict[str, list[tuple[datetime, datetime]]] = field(default_factory=dict)
    calls: list[dict[str, str]] = field(default_factory=list)
    broken: bool = False
    page_takes: timedelta = SECOND
    page: int = 10

    def change(self, number: str, lag: float = 0) -> None:
        earlier = self.changes.setdefault(number, [])
        shown = self.now + lag * SECOND
        earlier.append((self.now, max([shown, *(each[1] for each in earlier)])))

    def request(self, method: str, path: Any, *, params: dict[str, str], what: str, **more: Any) -> Answer:
        self.calls.append(params)
        self.now += self.page_takes
        if self.broken:
            raise ApiError(what, status=500)
        since = datetime.fromisoformat(params["seller_updated_after"])
        found = []
        for number, changes in sorted(self.changes.items()):
            visible = [happened for happened, shown in changes if shown <= self.now]
            if visible and visible[-1] >= since:
                found.append(self.order(number, len(visible)))
        start = int(params.get("cursor", 0))
        end = start + self.page
        following = str(end) if end < len(found) else None
        return Answer(200, {"orders": found[start:end], "next_cursor": following})

    def order(self, number: str, version: int) -> dict[str, Any]:
        return {"mp_order_number": number, "status": str(version), "fulfillments": [version]}

    @property
    def orders(self) -> OrdersApi:
        return OrdersApi(cast("Any", self))


def history(seed: int, *, overlap: timedelta = DEFAULT_OVERLAP, forget: bool = False) -> tuple[Told, Told]:
    """Live through a random history; return the latest version of each order, and what was handed out."""
    random = Random(seed)
    feedamp = LaggingFeedAmp(page_takes=random.choice([0, 1, 20]) * SECOND)
    skew = random.uniform(-LARGEST_SKEW, LARGEST_SKEW) * SECOND
    mark, told = Watermark(NOON - overlap - LARGEST_SKEW * SECOND), []
    for _ in range(random.randint(2, 30)):
        for _ in range(random.choice([0, 1, 3, 30])):
            feedamp.now += random.expovariate(1 / 20) * SECOND
            feedamp.change(str(random.randrange(40)), random.uniform(0, LONGEST_LAG))
        feedamp.now += random.choice([0, 30, 700]) * SECOND
        kept = Watermark(mark.at) if forget else mark
        changed, following = poll(feedamp.orders, kept, now=feedamp.now + skew, overlap=overlap)
        if random.random() < 0.8:  # else it crashes here: neither the orders nor the mark have come through
            told += [(each["mp_order_number"], int(each["status"])) for each in changed]
            mark = Watermark.from_json(json.loads(json.dumps(following.to_json())))
    feedamp.now += 2 * LONGEST_LAG * SECOND
    changed, _ = poll(feedamp.orders, mark, now=feedamp.now + skew, overlap=overlap)
    told += [(each["mp_order_number"], int(each["status"])) for each in changed]
    return [(number, len(changes)) for number, changes in feedamp.changes.items()], told


HISTORIES = range(150)


def test_no_change_is_missed_and_none_is_handed_out_twice() -> None:
    for seed in HISTORIES:
        latest, told = history(seed)
        assert set(latest) <= set(told), f"missed in history {seed}"
        assert len(told) == len(set(told)), f"told twice in history {seed}"


def test_without_an_overlap_changes_would_be_missed() -> None:
    missed = [seed for seed in HISTORIES if not set.issubset(*map(set, history(seed, overlap=timedelta(0))))]
    assert missed


def test_without_digests_orders_would_be_handed_out_twice() -> None:
    repeated = [told for _, told in (history(seed, forget=True) for seed in HISTORIES)]
    assert any(len(told) > len(set(told)) for told in repeated)


def test_a_change_while_a_list_is_read_comes_with_the_next_poll() -> None:
    feedamp = LaggingFeedAmp()
    feedamp.change("A1")
    read = feedamp.request

    def shipped_meanwhile(*arguments: Any, **named: Any) -> Answer:
        answer = read(*arguments, **named)
        feedamp.change("A2")
        feedamp.request = read  # type: ignore[method-assign]
        return answer

    feedamp.request = shipped_meanwhile  # type: ignore[method-assign]
    first, mark = poll(feedamp.orders, Watermark(NOON), now=NOON)
    second, _ = poll(feedamp.orders, mark, now=NOON + 10 * SECOND)
    assert first == [{"mp_order_number": "A1", "status": "1"}]
    assert second == [{"mp_order_number": "A2", "status": "1"}]


def test_a_poll_that_fails_leaves_the_mark_as_it_was() -> None:
    feedamp = LaggingFeedAmp(broken=True)
    feedamp.change("A1")
    mark = Watermark(NOON)
    with pytest.raises(ApiError):
        poll(feedamp.orders, mark, now=NOON)
    assert mark == Watermark(NOON)


def test_it_asks_from_the_start_of_the_poll_before_less_the_overlap() -> None:
    feedamp = LaggingFeedAmp()
    _, mark = poll(feedamp.orders, Watermark(NOON), now=NOON, overlap=60 * SECOND)
    poll(feedamp.orders, mark, now=NOON + 600 * SECOND, overlap=60 * SECOND)
    assert [call["seller_updated_after"] for call in feedamp.calls] == [
        "2026-06-01T11:59:00Z",
        "2026-06-01T11:59:00Z",
    ]


def test_a_mark_of_the_future_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    feedamp = LaggingFeedAmp()
    feedamp.change("A1")
    changed, mark = poll(feedamp.orders, Watermark(NOON + timedelta(days=900)), now=NOON)
    assert len(changed) == 1
    assert mark.at == NOON - DEFAULT_OVERLAP
    assert "a clock was wrong" in caplog.text


class OneOrder(LaggingFeedAmp):
    """An account with one order, as a test says that it is."""

    def __init__(self, **order: Any) -> None:
        super().__init__()
        self.change("A1")
        self.held = order

    def order(self, number: str, version: int) -> dict[str, Any]:
        return {"mp_order_number": number, **self.held}


class AlwaysTheSame:
    """A client whose lists have the same entries each time, whatever they are asked for."""

    def __init__(self, count: int) -> None:
        self._entries = [
            {"mp_order_number": str(number), "feedamp_refund_id": number} for number in range(count)
        ]
        self.orders = self.refunds = self.returns = self

    def list(self, *, refund_status: object = None, **filters: object) -> list[dict[str, Any]]:
        return [each | {"status": "CREATED" if refund_status else "AUTHORIZED"} for each in self._entries]


SHIPPED = {
    "status": "FULFILLED",
    "acknowledged": True,
    "fulfillments": [{"mp_line_number": "1"}],
    "errors": [],
}


@pytest.mark.parametrize(
    ("now", "again"),
    [
        (SHIPPED, False),
        (SHIPPED | {"status": "COMPLETE"}, False),  # closed by the marketplace
        (SHIPPED | {"marketplace_state": "SHIPPED", "delivery_notes": "ring twice"}, False),
        (SHIPPED | {"status": "IN_PROGRESS"}, True),
        (SHIPPED | {"acknowledged": False}, True),
        (SHIPPED | {"fulfillments": []}, True),
        (SHIPPED | {"fulfillments": [], "status": "COMPLETE"}, True),
        (SHIPPED | {"errors": [{"code": "INVALID_TRACKING_NUMBER"}]}, True),
        ({name: value for name, value in SHIPPED.items() if name != "status"}, True),
        ({}, True),
    ],
)
def test_what_counts_as_a_change_inside_the_overlap(now: dict[str, Any], again: bool) -> None:
    feedamp = OneOrder(**SHIPPED)
    _, mark = poll(feedamp.orders, Watermark(NOON), now=NOON)
    feedamp.held = now
    changed, _ = poll(feedamp.orders, mark, now=NOON + SECOND)
    assert bool(changed) is again


def test_a_mark_names_nobody() -> None:
    feedamp = OneOrder(**SHIPPED, shipping_address={"full_name": "A. Customer"})
    changed, mark = poll(feedamp.orders, Watermark(NOON), now=NOON)
    assert changed == [{"mp_order_number": "A1", "status": "FULFILLED"}]
    assert "A1" not in json.dumps(mark.to_json())
    assert "Customer" not in repr(mark)


def test_a_burst_is_handed_out_once_and_each_poll_lists_once() -> None:
    feedamp = LaggingFeedAmp(page=500, page_takes=0 * SECOND)
    for number in range(2500):
        feedamp.change(str(number))
    told, mark = [], Watermark(NOON)
    for _ in range(3):
        changed, following = poll(feedamp.orders, mark, now=feedamp.now)
        told.append(len(changed))
        mark = Watermark.from_json(json.loads(json.dumps(following.to_json())))
        feedamp.now += 60 * SECOND
    assert told == [2500, 0, 0]
    assert len(feedamp.calls) == 3 * 5
    assert len(json.dumps(mark.to_json())) < 41_000


@pytest.mark.parametrize("resource", ["fulfillments", "refunds", "returns"])
def test_a_mark_has_at_most_so_many_digests_and_what_it_forgets_is_handed_out_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, resource: str
) -> None:
    monkeypatch.setattr("airflow_provider_feedamp.api.changes.MOST_SEEN", 3)
    client: Any = AlwaysTheSame(8)
    first, mark = activity(client, resource, Watermark(NOON), now=NOON)
    again, _ = activity(client, resource, mark, now=NOON)
    assert len(first) == 8
    assert len(mark.seen) == 3
    assert again == first[3:]
    assert "A poll listed 8 entries and a mark knows 3" in caplog.text


def test_an_instant_is_kept_in_utc() -> None:
    berlin = timezone(timedelta(hours=2))
    assert Watermark(datetime(2026, 6, 1, 14, tzinfo=berlin)).to_json()["at"] == "2026-06-01T12:00:00+00:00"


@pytest.mark.parametrize("at", [datetime(2026, 6, 1), None, "2026-06-01T00:00:00Z"])
def test_an_instant_without_a_zone_is_refused(at: Any) -> None:
    with pytest.raises(InputError, match="time zone"):
        Watermark(at)
    with pytest.raises(InputError, match="time zone"):
        poll(LaggingFeedAmp().orders, Watermark(NOON), now=at)


def test_a_negative_overlap_is_refused() -> None:
    with pytest.raises(InputError, match="negative"):
        poll(LaggingFeedAmp().orders, Watermark(NOON), now=NOON, overlap=-SECOND)


@pytest.mark.parametrize(
    "kept",
    [
        None,
        7,
        "mark",
        [],
        {},
        {"at": "soon", "seen": ""},
        {"at": 3, "seen": ""},
        {"at": NOON.isoformat(), "seen": {}},
        {"at": NOON.isoformat(), "seen": "no base64"},
    ],
)
def test_what_is_no_mark_is_refused(kept: Any) -> None:
    with pytest.raises(InputError, match="watermark"):
        Watermark.from_json(kept)
