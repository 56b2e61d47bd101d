"""The task that makes sure of an access token before others use the order API."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from airflow.providers.common.compat.sdk import DAG, Stats

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    InputError,
    TokenNotRenewedError,
    TokenStoreError,
)
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, custodian_of
from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.airflow_runs import PATIENCE, TaskEnd, make_airflow
from tests.operators.support import for_good, to_be_retried, token_posts

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

DAGS = Path(__file__).parents[1] / "dags"


def operator(**arguments: Any) -> FeedAmpAccessTokenOperator:
    return FeedAmpAccessTokenOperator(task_id="access_token", **arguments)


def run(**arguments: Any) -> dict[str, Any]:
    told: dict[str, Any] = operator(**arguments).execute({})
    return told


def test_it_describes_the_token_and_never_returns_it(feedamp: RunningSandbox) -> None:
    before = datetime.now(UTC)

    told = run()

    assert set(told) == {"seller", "expires_at", "renewed", "generation"}
    assert (told["seller"], told["renewed"], told["generation"]) == ("hooli", True, 1)
    left = datetime.fromisoformat(told["expires_at"]) - before
    assert timedelta(minutes=59) < left <= timedelta(minutes=60, seconds=5)
    text = json.dumps(told)
    assert json.loads(text) == told
    [token] = feedamp.control.access_tokens("hooli")
    assert not any(each in text for each in (token, *feedamp.control.refresh_tokens("hooli")))


def test_run_again_it_leaves_a_good_token_alone(feedamp: RunningSandbox) -> None:
    first = run()

    assert run() == first | {"renewed": False}
    assert token_posts(feedamp) == 1


def test_it_acts_for_the_seller_that_it_is_given(feedamp: RunningSandbox) -> None:
    FeedAmpHook(seller="globex").exchange_code(feedamp.control.authorize("globex"))

    assert run(seller="globex")["seller"] == "globex"


# min_ttl


@pytest.mark.parametrize(
    ("min_ttl", "renewed"),
    [
        *((left, False) for left in (timedelta(minutes=59), 3540, 3540.0, "3540", " 3540.5 ", 0, "0")),
        *((more, True) for more in (timedelta(seconds=3599.999), 3599.999, "3599.999")),
    ],
)
def test_a_token_is_renewed_only_if_it_has_less_left_than_min_ttl(
    feedamp: RunningSandbox, min_ttl: Any, renewed: bool
) -> None:
    run()

    told = run(min_ttl=min_ttl)

    assert (told["renewed"], told["generation"], token_posts(feedamp)) == (renewed, 1 + renewed, 1 + renewed)


@pytest.mark.parametrize(
    "min_ttl", [timedelta(seconds=-1), -1, "-1", "soon", "", "0:10:00", "nan", "inf", None]
)
def test_a_min_ttl_that_is_no_duration_is_refused_before_anything_is_sent(
    feedamp: RunningSandbox, min_ttl: Any
) -> None:
    with for_good(InputError, match=r"^min_ttl is .*timedelta, or seconds"):
        run(min_ttl=min_ttl)

    assert token_posts(feedamp) == 0


def test_a_min_ttl_longer_than_a_tokens_life_is_refused(feedamp: RunningSandbox) -> None:
    with for_good(InputError, match="min_ttl of 7200 s"):
        run(min_ttl=7200)


def test_a_timedelta_survives_rendering() -> None:
    task = operator(min_ttl=timedelta(minutes=30))

    task.render_template_fields({})

    assert task.min_ttl == timedelta(minutes=30)


def test_it_maps_over_sellers() -> None:
    with DAG(dag_id="mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        mapped = FeedAmpAccessTokenOperator.partial(task_id="tokens", min_ttl=60).expand(
            seller=["hooli", "globex"]
        )

    assert mapped.expand_input.value == {"seller": ["hooli", "globex"]}
    assert mapped.partial_kwargs["min_ttl"] == 60


# Failures


def test_a_connection_that_is_not_there_fails_the_task_for_good() -> None:
    with for_good(ConfigurationError, match="'no_such_connection'"):
        run(feedamp_conn_id="no_such_connection")


@pytest.mark.parametrize("seller", ["", " "])
def test_a_template_that_renders_to_nothing_is_not_the_default_seller(
    feedamp: RunningSandbox, seller: str
) -> None:
    with pytest.raises(InputError, match="seller is empty"):
        run(seller=seller)

    assert token_posts(feedamp) == 0


def test_a_token_endpoint_that_asks_for_more_time_than_a_task_waits_is_left_to_retries(
    feedamp: RunningSandbox,
) -> None:
    feedamp.control.fault("http_error", on="token", status=503, wait=300)

    with to_be_retried(TokenNotRenewedError) as caught:
        run()

    assert caught.value.retry_after == 300
    assert run()["renewed"]


# The end of a refresh token's year


def age(days: float) -> None:
    """Let the refresh token of hooli have come so many days ago."""
    custodian = custodian_of(FeedAmpHook().config, "hooli")
    record = custodian.record()
    assert record is not None
    aged = record.changed(issued_at=time.time() - days * 86400)
    custodian.store.write(aged, expected=record.revision)


@pytest.mark.parametrize(
    ("days", "left", "warns"),
    [(334.99, 30, False), (335.01, 29, True), (364.5, 0, True), (366.5, -2, True)],
)
def test_it_warns_from_thirty_days_before_the_refresh_tokens_year_ends(
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture, days: float, left: int, warns: bool
) -> None:
    run()
    age(days)

    with patch.object(Stats, "gauge") as gauge:
        run()

    tags = {"connection": "feedamp_default", "seller": "hooli"}
    gauge.assert_called_once_with("feedamp.seller.days_left", left, tags=tags)
    warning = (
        f"The refresh token of seller 'hooli' (connection feedamp_default) has {left} days left of its year. "
        "Let the seller agree again in a browser: run `feedamp sellers authorize` for 'hooli'."
    )
    ours = [each for each in caplog.records if each.name.startswith("airflow_provider_feedamp")]
    found = [each.getMessage() for each in ours if each.levelno == logging.WARNING]
    assert found == ([warning] if warns else [])


def test_a_metric_that_fails_fails_no_task_and_costs_no_warning(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FeedAmpHook, "days_left", lambda hook: 3.5)

    with patch.object(Stats, "gauge", side_effect=OSError):
        assert run()["renewed"]

    assert "has 3 days left of its year" in caplog.text


def test_a_store_that_cannot_say_how_old_it_is_fails_no_task(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run()

    def away(*_: object) -> None:
        raise TokenStoreError("the store is away")

    monkeypatch.setattr(MemoryStore, "read", away)

    assert not run()["renewed"]  # this process has the token
    assert (
        "How old the refresh token of seller 'hooli' is could not be read: the store is away" in caplog.text
    )


@pytest.mark.processes
@pytest.mark.timeout(2 * PATIENCE)
def test_airflow_retries_what_can_pass_and_not_what_needs_a_person(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serve() as sandbox, serve() as down:
        # Longer than a task waits by itself, so that the next try is Airflow's.
        down.control.fault("http_error", on="token", status=503, wait=300, times=None)
        connection = sandbox.connection("hooli")
        no_such_token = {"refresh_token": "no-such-token", "seller": "globex"}
        connections = {
            "feedamp_default": connection,
            "feedamp_revoked": connection | {"extra": no_such_token},
            "feedamp_down": down.connection("hooli"),
        }
        home = make_airflow(tmp_path_factory, DAGS, connections)
        home.run({DAGS / "retries.py": {}})

        # The refused token was posted once.
        assert sandbox.control.counters()["tokens"] == {"refresh_token": {"issued": 1, "invalid_grant": 1}}
    assert home.tasks("feedamp_retries") == {
        "works": TaskEnd("success", 1),
        "must_authorise_again": TaskEnd("failed", 1),
        "token_endpoint_is_down": TaskEnd("failed", 2),
    }
