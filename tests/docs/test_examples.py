"""Every Python example of the README and of docs/ runs, and every command that they show exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from dvdq_eval.cli import app as dvdq_eval
from dvdq_models.cli import app as dvdq

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
COMMANDS = {"dvdq": dvdq, "dvdq-eval": dvdq_eval}
LINE = re.compile(r"^(?:dvdq|dvdq-eval) \S.*$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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
    group = typer.main.get_command(COMMANDS[name])
    assert isinstance(group, typer.core.TyperGroup)
    command = group.commands[words[0]]
    command.make_context(words[0], words[1:])
