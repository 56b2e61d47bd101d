"""Fault 16: a process forks while another of its threads holds a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.custody import LATER, Seller, new_name

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.faults.conftest import Deployment

pytestmark = pytest.mark.faults


@pytest.fixture
def seller(deployment: Deployment, strict: RunningSandbox, store: str) -> Seller:
    return Seller(deployment, strict, store, new_name())


def test_a_child_forked_while_the_token_is_renewed_gets_the_same_token_for_no_further_post(
    seller: Seller,
) -> None:
    seller.begin()
    seller.sandbox.control.advance(LATER)
    seller.sandbox.control.fault("slow", seconds=1.0)

    job = seller.job("while_renewing", module="tests.faults.forked", clock=LATER)
    [result] = seller.deployment.results(job)

    assert result["child"] == result["parent"] == seller.record()["access_token"]
    assert seller.posts() == 2
    assert not seller.lost()


def test_a_child_forked_while_the_store_is_read_can_use_the_store(seller: Seller) -> None:
    job = seller.job("while_reading", module="tests.faults.forked")
    [result] = seller.deployment.results(job)

    assert result["child"] == seller.record()["access_token"] != result["refused"]
    assert not seller.lost()
