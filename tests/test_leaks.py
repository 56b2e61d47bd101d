"""No byte of an access token, a refresh token, a code or a client secret gets out, whatever happens."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.exceptions import FeedAmpError, TokenError
from airflow_provider_feedamp.hooks.auth import FeedAmpAuth
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, HookTokens, custodian_of
from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.tokens.cache import CACHE
from tests.leak_scenes import HERE, SCENES, QuotingStore, Scene, code_refused, redirect_refused
from tests.leaks import Secrets, all_that_an_error_shows, everything_logged, settings, with_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def feedamp() -> Iterator[RunningSandbox]:
    with serve(settings()) as running:
        yield running


@pytest.fixture
def scene(feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    return Scene(feedamp, monkeypatch, tmp_path)


def test_there_is_a_scene_for_every_error() -> None:
    every = {
        kind
        for _, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, FeedAmpError) and kind not in (FeedAmpError, TokenError)
    }

    assert every <= set(SCENES.values())


@pytest.mark.parametrize("play", SCENES, ids=lambda play: play.__name__)
def test_an_error_and_its_log_hold_no_secret(
    scene: Scene, play: Callable[[Scene], None], capfd: pytest.CaptureFixture[str]
) -> None:
    with everything_logged() as tape, pytest.raises(SCENES[play]) as caught:
        play(scene)

    assert caught.type.__name__ == SCENES[play].__name__
    assert Secrets(scene.sandbox).found_in(all_that_an_error_shows(caught.value)) == []
    assert Secrets(scene.sandbox).found_in(tape.text()) == []
    assert Secrets(scene.sandbox).found_in("".join(capfd.readouterr())) == []


# A code is the caller's own: the caller's frame holds it anyway.
@pytest.mark.parametrize(
    "play",
    [play for play in SCENES if play not in (code_refused, redirect_refused)],
    ids=lambda play: play.__name__,
)
def test_not_even_the_variables_of_an_errors_frames_are_secrets(
    scene: Scene, play: Callable[[Scene], None]
) -> None:
    with pytest.raises(SCENES[play]) as caught:
        play(scene)

    assert Secrets(scene.sandbox).found_in(with_variables(caught.value)) == []


def test_a_token_that_cannot_be_stored_is_reported_without_it(
    scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = scene.connect(store=f"{HERE}.QuotingStore")
    store = custodian_of(hook.config, "hooli").store
    assert isinstance(store, QuotingStore)

    with everything_logged() as tape:
        hook.get_access_token()
        for store.broken in (True, False):
            CACHE.slot(custodian_of(hook.config, "hooli").key).save_at = 0.0  # the pause before a next try
            hook.get_access_token()

    assert "could NOT be stored (RuntimeError)" in tape.text()
    assert "has now been stored" in tape.text()
    assert Secrets(scene.sandbox).found_in(tape.text()) == []
    assert Secrets(scene.sandbox).found_in("".join(capfd.readouterr())) == []


def test_no_object_shows_a_secret(scene: Scene) -> None:
    hook = FeedAmpHook()
    token = hook.access_token()
    custodian = custodian_of(hook.config, "hooli")
    record = custodian.record()
    assert record is not None
    auth = FeedAmpAuth()
    hook.client.orders.list()
    shown = [
        *(
            hook,
            hook.config,
            vars(hook),
            token,
            HookTokens(hook),
            auth,
            vars(auth),
            hook.get_conn(),
            hook.client,
        ),
        *(custodian, custodian.endpoint, custodian.store, record, record.changed(generation=9)),
        *(CACHE.slot(custodian.key), custodian.endpoint.refresh(record.refresh_token), custodian.key),
        *(vars(hook.get_conn()), scene.sandbox.state.settings),
    ]

    for each in shown:
        assert Secrets(scene.sandbox).found_in(f"{each!r} {each}") == [], type(each).__name__


def test_the_task_returns_and_renders_no_secret(scene: Scene) -> None:
    task = FeedAmpAccessTokenOperator(task_id="token")

    told = task.execute({})

    rendered = {name: getattr(task, name) for name in task.template_fields}
    assert Secrets(scene.sandbox).found_in(f"{told} {rendered} {vars(task)}") == []


@pytest.mark.parametrize("kind", ["access", "refresh", "code", "client"])
def test_a_leak_would_be_seen(scene: Scene, kind: str) -> None:
    FeedAmpHook(seller="globex").exchange_code(scene.control.authorize("globex"))
    secrets = Secrets(scene.sandbox)
    for value in secrets.values()[kind]:
        assert secrets.found_in(f"the token is {value}.")
        assert secrets.found_in(f"the token ends with {value[-12:]}")
        assert secrets.found_in(all_that_an_error_shows(ValueError(value)))
    assert secrets.values()[kind]
