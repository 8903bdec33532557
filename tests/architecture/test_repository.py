"""What a newcomer is told to type is what runs, and nothing is tracked that should not be."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|ckpt|npz|mp4|whl)$")
BUNDLED = re.compile(r"packages/dvdq-models/src/dvdq_models/moving_shapes/pipelines/.*\.safetensors$")
PINNED = {
    canonicalize_name(line.split("==")[0])
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
}


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()


def test_the_readme_holds_the_two_commands() -> None:
    lines = shell_lines(README)
    assert "python -m pip install nox && python -m nox -s demo" in lines
    assert "python -m pip install nox && python -m nox -s tests" in lines


def test_ci_runs_the_readme_s_test_command_and_nothing_else() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    shebang, strict, folder, *commands = script.read_text().splitlines()
    assert shebang == "#!/usr/bin/env bash"
    assert strict == "set -euo pipefail"
    assert folder == 'cd "$(dirname "$0")/.."'
    assert commands == [line for line in shell_lines(README) if line.endswith("nox -s tests")]


@pytest.mark.parametrize(
    "path",
    [
        ".nox/x",
        ".venv/x",
        ".mypy_cache/x",
        ".ruff_cache/x",
        ".pytest_cache/x",
        ".hypothesis/x",
        ".import_linter_cache/x",
        "packages/dvdq-eval/src/dvdq_eval/__pycache__/x.pyc",
        "packages/dvdq-eval/dist/x.whl",
        "docs/_build/index.html",
        "out/demo/report.html",
    ],
)
def test_what_is_made_here_is_not_tracked(path: str) -> None:
    assert git("check-ignore", "--no-index", path) == [path]


def test_the_only_weights_are_the_bundled_pipeline() -> None:
    tracked = [name for name in git("ls-files") if WEIGHTS.search(name)]
    assert [name for name in tracked if not BUNDLED.match(name)] == []


def test_every_dependency_is_pinned_for_ci() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [entry for group in groups.values() for entry in group]
    for file in ROOT.glob("packages/*/pyproject.toml"):
        wanted += tomllib.loads(file.read_text())["project"]["dependencies"]
    names = {canonicalize_name(Requirement(entry).name) for entry in wanted}
    assert {name for name in names if not name.startswith("dvdq-")} <= PINNED


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("packages/*/README.md")]
    links = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())]
    local = [(page, target) for page, target in links if not re.match(r"[a-z]+:", target)]
    assert [(page.name, target) for page, target in local if not (page.parent / target).exists()] == []
