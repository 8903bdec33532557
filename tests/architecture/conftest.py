from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--wheels", help="a folder with wheels to look at, in place of those that are built now")


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of each package."""
    given = request.config.getoption("--wheels", None)
    if given is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("wheels")
    for package in (ROOT / "packages").iterdir():
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(command, cwd=package, check=True, capture_output=True)
    return folder
