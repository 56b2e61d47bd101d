from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.cli import base
from airflow_provider_feedamp.cli.main import main
from tests.cli.support import run

if TYPE_CHECKING:
    from tests.cli.support import Shop


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("sellers",),
        ("tokens",),
        ("sellers", "nonsense"),
        ("sellers", "list", "--nonsense"),
        ("sellers", "refresh"),
        ("sellers", "refresh", "a", "b"),
        ("sellers", "refresh", " "),
        ("sellers", "authorize", "a", "--port", "65536"),
        ("sellers", "authorize", "a", "--port", "x"),
        ("sellers", "authorize", "a", "--timeout", "0"),
        ("sellers", "authorize", "a", "--port", "0", "--code-from-stdin"),
        ("tokens", "export"),
        ("tokens", "export", "f", "--seller", ""),
    ],
)
def test_a_misuse_is_one_line_and_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "--help" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [("--help",), ("-h",), ("sellers", "--help"), ("tokens", "import", "-h")]
)
def test_help_is_given(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")


def test_the_version_is_the_packages() -> None:
    assert __version__ in run("--version").stdout


def test_a_failure_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({"conn_type": "http"}))

    result = run("sellers", "list", "--conn-id", "wrong")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: The Airflow connection 'wrong' has type 'http'. Set its type (conn_type) to feedamp.\n"
    )


def test_a_redirect_url_that_is_none_is_misuse(shop: Shop) -> None:
    result = run("sellers", "authorize", "globex", "--redirect-url", "shop.example/back")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(("debug", "traced"), [((), False), (("--debug",), True)])
def test_a_surprise_is_told_without_its_text_and_traced_only_on_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...], traced: bool
) -> None:
    def broken(self: object) -> None:
        msg = "a-text-that-may-quote-a-token"
        raise RuntimeError(msg)

    monkeypatch.setattr(base.Deployment, "records", broken)

    result = run(*debug, "sellers", "list")

    assert result.exit_code == 1
    assert "Error: RuntimeError, which was not expected." in result.stderr
    assert ("Traceback" in result.stderr) is traced
    assert ("a-text-that-may-quote" in result.stderr) is traced


def test_a_failure_is_traced_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({"conn_type": "http"}))

    assert "Traceback" in run("--debug", "sellers", "list", "--conn-id", "wrong").stderr


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--help"]), main(["nonsense"])) == (0, 2)
    assert "Usage: feedamp [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["sellers", "authorize", "--help"], ["sandbox", "--help"]])
def test_help_costs_no_import_of_airflow(arguments: list[str]) -> None:
    heavy = ["airflow", "requests", "cryptography", "pendulum", "fastapi"]
    program = (
        "import sys; from airflow_provider_feedamp.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"sys.exit(sorted(set({heavy}) & set(sys.modules)).__repr__())"
    )

    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)

    assert "usage" in done.stdout.lower()
    assert done.stderr == "[]\n"


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow_provider_feedamp", "sellers", "--help"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: python -m airflow_provider_feedamp sellers")


def test_the_sandbox_gets_its_own_switches() -> None:
    unknown = subprocess.run(
        [sys.executable, "-m", "airflow_provider_feedamp", "sandbox", "--set", "nonsense=1"],
        capture_output=True,
        text=True,
    )

    assert unknown.returncode == 1
    assert "nonsense" in unknown.stderr
