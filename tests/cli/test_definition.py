from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

from airflow_provider_feedamp.cli.main import get_feedamp_cli_commands, run
from tests.house import PROJECT, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.support import Shop

AIRFLOW = Version(airflow_version)
(PROVIDER,) = PROJECT["project"]["entry-points"]["apache_airflow_provider"].items()


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
        run(parsed(*words))

    assert ended.value.code == code


def test_help_speaks_of_airflows_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(parsed("help"))

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
