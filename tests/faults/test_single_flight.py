"""Faults 1, 2, 8 and 12 with real processes: whatever many workers do at once, one of them asks FeedAMP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.custody import LATER, Seller, new_name

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.faults.conftest import Deployment

pytestmark = pytest.mark.faults

PROCESSES, THREADS = 4, 8


@pytest.fixture
def seller(deployment: Deployment, strict: RunningSandbox, store: str) -> Seller:
    return Seller(deployment, strict, store, new_name())


def assert_one_renewal(seller: Seller, results: list[dict[str, list[str]]]) -> None:
    """Check that all workers got one new token, for one POST after the first, and that nothing is lost."""
    record = seller.record()
    assert [error for result in results for error in result["errors"]] == []
    assert {token for result in results for token in result["tokens"]} == {record["access_token"]}
    assert seller.posts() == 2
    assert seller.posts_at_once() == 1
    assert seller.sandbox.control.access_tokens(seller.name)[-1] == record["access_token"]
    assert seller.sandbox.control.refresh_tokens(seller.name) == [record["refresh_token"]]


@pytest.mark.parametrize("delay", [0.0, 3.0], ids=["a quick winner", "a winner that is 3 s slow"])
def test_32_workers_in_4_processes_on_an_expired_token_make_one_post(seller: Seller, delay: float) -> None:
    seller.begin()
    seller.sandbox.control.advance(LATER)
    if delay:
        seller.sandbox.control.fault("slow", seconds=delay)

    worker = seller.job("ask", threads=THREADS, clock=LATER)
    results = seller.deployment.results(*[worker] * PROCESSES)

    assert sum(len(result["tokens"]) for result in results) == PROCESSES * THREADS
    assert_one_renewal(seller, results)


def test_32_workers_in_4_processes_with_a_401_make_one_post(seller: Seller) -> None:
    refused = seller.begin()
    seller.sandbox.control.expire(seller.name)

    worker = seller.job("ask", threads=THREADS, refused=refused)
    results = seller.deployment.results(*[worker] * PROCESSES)

    assert_one_renewal(seller, results)


def test_32_workers_in_4_processes_on_a_seller_that_nobody_has_used_make_one_post(seller: Seller) -> None:
    results = seller.deployment.results(*[seller.job("ask", threads=THREADS)] * PROCESSES)

    assert {token for result in results for token in result["tokens"]} == {seller.record()["access_token"]}
    assert seller.posts() == 1
    assert not seller.lost()


def test_workers_whose_clocks_are_5_minutes_apart_make_one_post(seller: Seller) -> None:
    seller.begin()
    seller.sandbox.control.advance(LATER)

    workers = [seller.job("ask", threads=THREADS, clock=LATER + skew) for skew in (-150, -50, 50, 150)]
    results = seller.deployment.results(*workers)

    assert_one_renewal(seller, results)
