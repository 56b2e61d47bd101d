from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import RefundsApi, Unverified
from airflow_provider_feedamp.api.types import RefundStatus
from airflow_provider_feedamp.exceptions import ApiError, InputError, NotFoundError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Http

pytestmark = pytest.mark.once

REFUND: dict[str, Any] = {"mp_order_number": "A", "feedamp_refund_id": 1001, "status": "CREATED"}
NO_REFUND_ID: list[Any] = ["", "10 01", "A1", "-1", "1.0", "²", "٣", -1, 1.0, True, None, "1/2"]


def test_the_filters_are_sent_as_feedamp_reads_them(refunds: RefundsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"refunds": []}))
    found = refunds.list(
        mp_order_numbers=["A", "ü"],
        refund_status=[RefundStatus.CREATED, "SOMETHING_NEW"],
        created_after=datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC),
        created_before=datetime(2024, 5, 2, 12, 0, 0, 500_000, tzinfo=UTC),
        page_size=10,
    )
    assert list(found) == []
    assert edge.received[0].path == "/api/v1/refunds"
    assert edge.received[0].query == {
        "mp_order_numbers": "A,ü",
        "refund_status": "CREATED,SOMETHING_NEW",
        "created_after": "2024-05-01T12:00:00Z",
        "created_before": "2024-05-02T12:00:01Z",
        "page_size": "10",
    }


def test_the_refunds_of_one_order_are_read(refunds: RefundsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"refunds": [REFUND, REFUND, REFUND | {"feedamp_refund_id": 1002}]}))
    assert refunds.of_order("A/1") == [REFUND, REFUND | {"feedamp_refund_id": 1002}]
    assert edge.received[0].target == "/api/v1/orders/A%2F1/refunds"


def test_an_order_whose_refunds_come_in_pages_gives_them_all(refunds: RefundsApi, edge: Edge) -> None:
    first = {"refunds": [REFUND], "next_cursor": "c"}
    edge.will_reply(Reply(200, first), Reply(200, {"refunds": [REFUND | {"feedamp_refund_id": 2}]}))
    assert [refund["feedamp_refund_id"] for refund in refunds.of_order("A")] == [1001, 2]


def test_refunds_of_an_unknown_order_are_not_found(refunds: RefundsApi, edge: Edge) -> None:
    edge.will_reply(Reply(404))
    with pytest.raises(NotFoundError, match="the refunds of order 'A'"):
        refunds.of_order("A")


@pytest.mark.parametrize("refund_id", [1001, "1001"])
def test_one_refund_is_read_by_its_id(refunds: RefundsApi, edge: Edge, refund_id: int | str) -> None:
    edge.will_reply(Reply(200, REFUND | {"status": "SOMETHING_NEW", "new_field": 1}))
    assert refunds.get("A/1", refund_id) == REFUND | {"status": "SOMETHING_NEW", "new_field": 1}
    assert edge.received[0].target == "/api/v1/orders/A%2F1/refunds/1001"


@pytest.mark.parametrize("refund_id", NO_REFUND_ID)
def test_what_is_no_refund_id_is_refused_unsent(refunds: RefundsApi, edge: Edge, refund_id: Any) -> None:
    for call in (
        lambda: refunds.get("A", refund_id),
        lambda: refunds.complete("A", refund_id),
        lambda: refunds.report_errors("A", refund_id, [{"code": "A", "message": "b"}]),
    ):
        with pytest.raises(InputError, match="feedamp_refund_id of a refund of order 'A'"):
            call()
    assert edge.received == []


@pytest.mark.parametrize("reply", [Reply(200, [REFUND]), Reply(200, b""), Reply(204), Reply(200, "text")])
def test_an_answer_that_is_not_a_refund_is_an_error(refunds: RefundsApi, edge: Edge, reply: Reply) -> None:
    edge.will_reply(reply)
    with pytest.raises(ApiError, match=r"reading refund 7 of order 'A'.*no JSON object"):
        refunds.get("A", 7)


@pytest.mark.parametrize("body", [[], [REFUND], {}, {"refunds": None}, {"refunds": [1]}])
def test_refunds_of_an_order_that_are_no_list_are_an_error(
    refunds: RefundsApi, edge: Edge, body: Any
) -> None:
    edge.will_reply(Reply(200, body))
    with pytest.raises(ApiError, match="no list of refunds"):
        refunds.of_order("A")


@pytest.mark.parametrize("answer", [Reply(200, {}), Reply(204), Reply(200, b""), Reply(202, b"done")])
def test_any_success_marks_a_refund_as_complete(refunds: RefundsApi, edge: Edge, answer: Reply) -> None:
    edge.will_reply(answer)
    refunds.complete("A", 7)
    assert len(edge.received) == 1


@pytest.mark.parametrize(
    ("tail", "target"),
    [
        ("mark-complete", "/api/v1/orders/A/refunds/7/mark-complete"),
        ("actions/complete", "/api/v1/orders/A/refunds/7/actions/complete"),
        ("/", "/api/v1/orders/A/refunds/7"),
    ],
)
def test_the_guessed_path_can_be_replaced(http: Http, edge: Edge, tail: str, target: str) -> None:
    RefundsApi(http, Unverified(refund_complete_path=tail)).complete("A", 7)
    assert edge.received[0].target == target
