"""Fault 4: SIGTERM and SIGALRM at any moment of a renewal, 1,000 times, and never is a refresh token lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.custody import Seller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.faults.conftest import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

#: 1,000 runs: two stores, two signals, two lanes that run side by side, each with a seller of its own.
RUNS = 125
LANES = 2


def test_500_signals_at_any_moment_lose_no_refresh_token(
    deployment: Deployment, strict: RunningSandbox, store: str
) -> None:
    stores = {"variable": "tests.faults.interrupt.HastyVariableStore", "sql": "sql"}
    sellers = [
        Seller(deployment, strict, stores[store], f"{number} {lane}")
        for number in ("SIGTERM", "SIGALRM")
        for lane in range(LANES)
    ]
    lanes = deployment.results(
        *(
            seller.job("runs", module="tests.faults.interrupt", number=seller.name.split()[0], runs=RUNS)
            for seller in sellers
        )
    )

    for seller, lane in zip(sellers, lanes, strict=True):
        assert lane["lost"] == []
        assert lane["inside"] > RUNS / 10  # else the signals came when there was nothing to lose
        assert lane["inside"] + lane["outside"] + lane["late"] == RUNS
        assert not seller.lost()
    assert strict.control.counters()["tokens"]["refresh_token"].keys() == {"issued"}
