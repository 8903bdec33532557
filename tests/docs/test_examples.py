"""Every Python example of the README and of docs/ runs, so does every command marked so, and every other exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser
from typer.testing import CliRunner

from dvdq_eval.cli import app as dvdq_eval
from dvdq_models.cli import app as dvdq

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
FOLLOWED = (ROOT / "docs/backends.md", ROOT / "docs/adding-a-family.md")
"""Whose examples are files, which ``test_adding_a_backend`` and ``test_adding_a_family`` write."""
COMMANDS = {"dvdq": dvdq, "dvdq-eval": dvdq_eval}
LINE = re.compile(r"^(?:dvdq|dvdq-eval) \S.*$", re.MULTILINE)
EXECUTED = re.compile(r"^<!-- executed -->\n```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p not in FOLLOWED], ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(page)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in LINE.findall(page.read_text())}), ids=lambda line: line[:40]
)
def test_commands_exist_with_these_options(line: str) -> None:
    """Typer's parser accepts the words; nothing is run."""
    name, *words = shlex.split(line)
    command = typer.main.get_command(COMMANDS[name])
    while isinstance(command, typer.core.TyperGroup):
        name, *words = words
        command = command.get_command(None, name)
    command.make_context(name, words)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if EXECUTED.search(page.read_text())], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_marked_as_executed_run_one_after_another(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in EXECUTED.findall(page.read_text()):
        for line in block.splitlines():
            name, *words = shlex.split(line)
            done = CliRunner().invoke(COMMANDS[name], words)
            assert done.exit_code == 0, (line, done.output, done.exception)
