from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_feedamp.cli.base import FailedError, MisuseError
from airflow_provider_feedamp.cli.sellers import code_of, listening, redirect_query

STATE = "our-state"
CODE = "the-code"


@pytest.mark.parametrize(
    "pasted",
    [
        f"https://shop.example/back?code={CODE}&state={STATE}",
        f"https://shop.example/back?tenant=1&state={STATE}&code={CODE}#top",
        f"  http://127.0.0.1/?code={CODE}&state={STATE}\n",
        f"?code={CODE}&state={STATE}",
        f"code={CODE}&state={STATE}",
    ],
)
def test_the_code_is_taken_out_of_what_was_pasted(pasted: str) -> None:
    assert code_of(redirect_query(pasted), STATE) == CODE


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        CODE,
        "https://shop.example/back",
        f"https://shop.example/back?code={CODE}",
        f"https://shop.example/back?state={STATE}",
        f"https://shop.example/back?code={CODE}&code=other&state={STATE}",
        f"https://shop.example/back?code={CODE}&state=x&state={STATE}",
        "http://[?code=a&state=b",
    ],
)
def test_what_is_no_redirect_is_refused_as_misuse(pasted: str) -> None:
    with pytest.raises(MisuseError) as caught:
        code_of(redirect_query(pasted), STATE)

    assert CODE not in str(caught.value)


@pytest.mark.parametrize("state", ["another", STATE + "x", STATE[:-1], STATE.upper(), "\udcff", "ü"])
def test_a_redirect_with_another_state_is_refused(state: str) -> None:
    with pytest.raises(FailedError, match="was not used") as caught:
        code_of(redirect_query(f"code={CODE}&state={state}"), STATE)

    assert CODE not in str(caught.value)


def test_a_decline_is_told_with_its_reason() -> None:
    with pytest.raises(FailedError, match=r"\(access_denied\)"):
        code_of(redirect_query(f"error=access_denied&state={STATE}"), STATE)


def test_a_decline_with_a_strange_reason_is_told_without_it() -> None:
    with pytest.raises(FailedError) as caught:
        code_of(redirect_query(f"error=%1b[2J<script>&state={STATE}"), STATE)

    assert "script" not in str(caught.value)


def test_a_decline_with_another_state_says_nothing_about_ours() -> None:
    with pytest.raises(FailedError, match="was not used"):
        code_of(redirect_query("error=access_denied&state=another"), STATE)


def test_the_redirect_is_caught_on_loopback_and_the_page_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with listening(0, STATE) as listener:
        page = requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=10)
        code = listener.wait(5)

    assert code == CODE
    assert "You can close this window" in page.text
    assert CODE not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert urlsplit(listener.url).hostname == "127.0.0.1"
    assert CODE not in "".join(capfd.readouterr())


def test_other_requests_do_not_end_the_waiting() -> None:
    with listening(0, STATE) as listener:
        statuses = [
            requests.get(listener.url + rest, timeout=10).status_code
            for rest in ("favicon.ico", "", "?code=forged&state=guessed", f"?code={CODE}&state={STATE}")
        ]
        code = listener.wait(5)

    assert (statuses, code) == ([404, 404, 400, 200], CODE)


def test_a_silent_connection_does_not_hold_up_the_redirect() -> None:
    with listening(0, STATE) as listener:
        port = urlsplit(listener.url).port
        with socket.create_connection(("127.0.0.1", port)):
            requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=5)

        assert listener.wait(5) == CODE


def test_a_decline_in_the_browser_ends_the_waiting() -> None:
    with listening(0, STATE) as listener:
        page = requests.get(f"{listener.url}?error=access_denied&state={STATE}", timeout=10)

        with pytest.raises(FailedError, match="access_denied"):
            listener.wait(5)

    assert "declined" in page.text


def test_waiting_ends_when_nobody_comes() -> None:
    with listening(0, STATE) as listener, pytest.raises(FailedError, match="--code-from-stdin"):
        listener.wait(0.01)


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(FailedError, match=f"127.0.0.1:{port}"), listening(port, STATE):
            pass
