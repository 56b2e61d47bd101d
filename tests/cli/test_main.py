from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.cli import base
from airflow_provider_feedamp.cli.main import get_feedamp_cli_commands, main
from airflow_provider_feedamp.cli.main import run as run_in_airflow
from tests.cli.support import run
from tests.house import PROJECT, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.support import Shop

AIRFLOW = Version(airflow_version)
(PROVIDER,) = PROJECT["project"]["entry-points"]["apache_airflow_provider"].items()


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
    result = run(*arguments, code=2)

    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "--help" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("group", [(), ("orders",), ("sellers",), ("tokens",)])
def test_the_short_help_of_every_command_is_a_whole_sentence(group: tuple[str, ...]) -> None:
    shown = run(*group, "--help").stdout.split("Commands:\n")[1].splitlines()

    assert shown
    assert [line for line in shown if not line.endswith(".") or line.endswith("..")] == []


def test_docs_names_the_address_or_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "names no address" in run("docs").stdout

    monkeypatch.setattr("airflow_provider_feedamp.cli.main.documentation", lambda: "https://example.com/d/")
    assert run("docs").stdout == "https://example.com/d/\n"


@pytest.mark.parametrize(
    "arguments", [("--help",), ("-h",), ("sellers", "--help"), ("tokens", "import", "-h")]
)
def test_help_is_given(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")


def test_the_version_is_the_packages() -> None:
    assert __version__ in run("--version").stdout


def test_a_failure_is_one_line_and_exit_code_1_and_traced_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({"conn_type": "http"}))
    command = ("sellers", "list", "--conn-id", "wrong")

    result = run(*command, code=1)

    assert result.output == (
        "Error: The Airflow connection 'wrong' has type 'http'. Set its type (conn_type) to feedamp.\n"
    )
    assert "Traceback" in run("--debug", *command, code=1).stderr


@pytest.mark.parametrize(("debug", "traced"), [((), False), (("--debug",), True)])
def test_a_surprise_is_told_without_its_text_and_traced_only_on_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, debug: tuple[str, ...], traced: bool
) -> None:
    def broken(self: object, seller: object = None) -> None:
        msg = "a-text-that-may-quote-a-token"
        raise RuntimeError(msg)

    monkeypatch.setattr(base.Deployment, "hook", broken)

    result = run(*debug, "sellers", "list", code=1)

    assert "Error: RuntimeError, which was not expected." in result.stderr
    assert ("Traceback" in result.stderr) is traced
    assert ("a-text-that-may-quote" in result.stderr) is traced


def test_main_returns_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--help"]), main(["nonsense"])) == (0, 2)
    assert "Usage: feedamp [OPTIONS]" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["sellers", "authorize", "--help"], ["sandbox", "--help"]])
def test_help_costs_no_import_of_airflow(arguments: list[str]) -> None:
    heavy = ["airflow", "requests", "cryptography", "pendulum", "pydantic", "fastapi"]
    program = (
        "import sys; from airflow_provider_feedamp.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"sys.exit(sorted(set({heavy}) & set(sys.modules)).__repr__())"
    )

    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)

    assert "usage" in done.stdout.lower()
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sellers", "--help"], 0, "Usage: python -m airflow_provider_feedamp sellers"),
        (["sandbox", "--set", "nonsense=1"], 1, "nonsense"),  # the sandbox has switches of its own
    ],
)
def test_the_package_runs_as_a_module(words: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-m", "airflow_provider_feedamp", *words]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, said in done.stdout + done.stderr) == (code, True)


def parsed(*arguments: str) -> argparse.Namespace:
    """Return what Airflow's parser hands to the command."""
    (command,) = get_feedamp_cli_commands()
    parser = argparse.ArgumentParser()
    for argument in command.args:  # type: ignore[union-attr]
        argument.add_to_parser(parser)
    return parser.parse_args(arguments)


def test_airflows_command_hands_every_word_on() -> None:
    words = ["sellers", "list", "--json", "--conn-id", "x"]

    assert parsed(*words).arguments == words


@pytest.mark.parametrize(("words", "code"), [(["help"], 0), (["sellers", "list"], 0), (["nonsense"], 2)])
def test_airflows_command_ends_as_ours_does(shop: Shop, words: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_in_airflow(parsed(*words))

    assert ended.value.code == code


def test_help_speaks_of_airflows_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_in_airflow(parsed("help"))

    assert capsys.readouterr().out.startswith("Usage: airflow feedamp [OPTIONS]")


@pytest.mark.skipif(Version("3.2") > AIRFLOW, reason="providers add commands to Airflow's from 3.2 on")
def test_airflow_has_the_command(tmp_path: Path) -> None:
    # As an installed distribution says it, for those who run the tests on the source alone.
    described = tmp_path / "airflow_provider_feedamp-0.0.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: airflow-provider-feedamp\nVersion: 0.0.0\n"
    )
    group, (name, target) = "apache_airflow_provider", PROVIDER
    (described / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")

    done = subprocess.run(
        [sys.executable, "-m", "airflow", "feedamp", "tokens", "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "Usage: airflow feedamp tokens" in done.stdout
