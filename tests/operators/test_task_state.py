from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_feedamp.operators.orders import TaskCheckpoints, checkpoints_of, metric_tags

pytestmark = pytest.mark.once


class Store(dict[str, Any]):
    """What Airflow's accessor of a task's state does."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


def context(store: Store | None, *, try_number: int = 1, max_tries: int = 2) -> dict[str, Any]:
    ti = SimpleNamespace(try_number=try_number, max_tries=max_tries, dag_id="a_dag", task_id="place")
    return {"ti": ti} | ({} if store is None else {"task_state_store": store})


def test_a_retry_finds_the_checkpoint_of_the_try_before() -> None:
    store = Store()

    TaskCheckpoints(store, 2).save({"read": 5})
    found = checkpoints_of(context(store, try_number=2))

    assert found is not None
    assert found.load()["read"] == 5


def test_after_a_clear_the_checkpoint_is_not_found_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store = Store()
    TaskCheckpoints(store, 2).save({"read": 5})

    # Airflow raises max_tries when a task is cleared (clear_task_instances), and counts its tries on.
    found = checkpoints_of(context(store, try_number=3, max_tries=4))

    assert found is not None
    assert found.load() is None
    assert "no try since the task was last cleared left a checkpoint" in caplog.text


def test_nothing_is_left_when_all_is_done() -> None:
    store = Store()
    found = TaskCheckpoints(store, 2)
    found.save({"read": 5})

    found.clear()
    found.clear()

    assert store == {}


@pytest.mark.parametrize(("try_number", "lines"), [(1, 0), (2, 1)])
def test_an_airflow_without_such_a_store_is_named_in_a_retry(
    caplog: pytest.LogCaptureFixture, try_number: int, lines: int
) -> None:
    caplog.set_level(logging.INFO)

    assert checkpoints_of(context(None, try_number=try_number)) is None
    assert caplog.text.count("no checkpoint for a retry before 3.3") == lines


def test_without_a_context_there_is_nothing() -> None:
    assert checkpoints_of({}) is None
    assert metric_tags({}) == {}


def test_metrics_are_tagged_as_airflows_own() -> None:
    assert metric_tags(context(None)) == {"dag_id": "a_dag", "task_id": "place"}
