"""The page on adding a family, followed to the letter: its files are written, installed and run, and nothing edited."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dvdq_models.cli import app
from dvdq_models.families import families

PAGE = (Path(__file__).parents[2] / "docs/adding-a-family.md").read_text()
FILES = dict(re.findall(r"^```python\n# (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
ENTRY_POINTS = re.findall(r'^\[project\.entry-points\."(.*?)"\]\ntoy = "(.*?)"$', PAGE, re.MULTILINE)
COMMANDS = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    installed = tmp_path / "site"
    (installed / "toy-1.dist-info").mkdir(parents=True)
    for name in ("toy_video.py", "toy_family.py"):
        (installed / name).write_text(FILES[name])
    [(group, place)] = ENTRY_POINTS
    (installed / "toy-1.dist-info/entry_points.txt").write_text(f"[{group}]\ntoy = {place}\n")
    (installed / "toy-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.chdir(tmp_path)
    families.cache_clear()
    yield
    families.cache_clear()
    for module in ("toy_video", "toy_family"):
        sys.modules.pop(module, None)


@pytest.mark.usefixtures("_toy")
def test_the_page_does_all_that_it_says() -> None:
    exec(compile(FILES["a script"], "a script", "exec"), {})
    shown = []
    for line in "".join(COMMANDS).splitlines():
        done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--json"])
        assert done.exit_code == 0, (line, done.output, done.exception)
        shown.append(json.loads(done.stdout))
    inspected, _, generated = shown
    assert (inspected["family"], inspected["parameters"]) == ("toy", 531_459)
    assert {layer["treatment"] for layer in inspected["layers"]} == {"quantize", "keep"}
    assert [step["bits"] for step in generated["trace"]][:2] == [8, 8]
    exec(compile(FILES["another script"], "another script", "exec"), {})


def test_without_the_entry_point_it_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ToyTransformer3DModel"}))
    done = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert "expected a video transformer that is covered" in str(done.exception)
