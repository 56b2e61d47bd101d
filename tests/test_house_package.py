"""The wheel holds our package, whole, and nothing that belongs to someone else's namespace."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from typing import TYPE_CHECKING

import pytest

import airflow_provider_feedamp
from tests.house import PACKAGE, ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("module", ["airflow_provider_feedamp.hooks.feedamp", "unusual_prefix_0a1b_example"])
def test_a_deprecation_that_our_code_causes_is_an_error_in_the_tests(module: str) -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("on its way out", DeprecationWarning, f"{module}.py", 1, module)


def test_the_wheel_is_named_after_the_version(wheel: Path) -> None:
    assert wheel.name == f"airflow_provider_feedamp-{airflow_provider_feedamp.__version__}-py3-none-any.whl"


def test_the_wheel_keeps_out_of_airflows_own_namespace(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}

    assert tops == {
        "airflow_provider_feedamp",
        f"airflow_provider_feedamp-{airflow_provider_feedamp.__version__}.dist-info",
    }


def test_the_wheel_holds_every_module_and_the_mark_that_it_is_typed(names: set[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")}

    assert modules | {"airflow_provider_feedamp/py.typed"} <= names


def test_the_wheel_carries_the_licence(names: set[str]) -> None:
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
