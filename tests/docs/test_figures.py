"""Figures in the pages are those of the recorded data, and the script that writes them notices when they are not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
ROW = {
    "method": "dvd-quant",
    "bits": "W4A6",
    "bytes": 2**20,
    "compression": 3.5,
    "average_bits": 6.0,
    "psnr_db": 25.04,
    "ssim": 0.9,
    "latent_error": None,
    "adherence": {"colour": 1.0, "shape": 0.75},
}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "docs/figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs/data").mkdir(parents=True)
    (tmp_path / "README.md").write_text("a\n<!-- begin:demo-table -->\n<!-- end:demo-table -->\nb\n")
    (tmp_path / "docs/data/demo-results.json").write_text(json.dumps({"rows": [ROW]}))
    return tmp_path


def test_every_figure_in_the_pages_is_current(figures: ModuleType) -> None:
    assert figures.stale(ROOT) == []


def test_a_figure_is_written_from_its_row_once(figures: ModuleType, root: Path) -> None:
    text = figures.rewrite((root / "README.md").read_text(), root)
    assert "| dvd-quant W4A6 | 1.00 | 3.50 × | 6.00 | 25.0 | 0.900 | – | 100% | 75% |" in text
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    assert figures.rewrite(text, root) == text


def test_a_figure_that_was_edited_or_whose_row_changed_is_noticed(figures: ModuleType, root: Path) -> None:
    page = root / "README.md"
    current = figures.rewrite(page.read_text(), root)
    page.write_text(current.replace("25.0", "26.0"))
    assert figures.stale(root) == [page]
    page.write_text(current)
    assert figures.stale(root) == []
    (root / "docs/data/demo-results.json").write_text(json.dumps({"rows": [{**ROW, "psnr_db": 30.0}]}))
    assert figures.stale(root) == [page]


def test_a_region_that_nobody_makes_is_an_error(figures: ModuleType, root: Path) -> None:
    with pytest.raises(KeyError):
        figures.rewrite("<!-- begin:nothing -->\n<!-- end:nothing -->", root)
    with pytest.raises(ValueError, match="without its end"):
        figures.rewrite("<!-- begin:demo-table -->\n", root)


def test_of_runs_on_one_machine_the_last_one_counts(figures: ModuleType, root: Path) -> None:
    folder = root / "benchmarks/results/cpu"
    folder.mkdir(parents=True)
    rows = (
        "operation,provider,device,shape,p20_s,p50_s,p80_s,ratio,peak_bytes",
        *("bgr,peer,cpu,2x4,1,2,3,1.0,1048576", "bgr,retired,cpu,2x4,1,2,3,1.0,1048576", "bgr,ours,cpu,2x4,1,2,3,2,0"),
        *("bgr,peer,cpu,2x4,4,5,6,1.0,1048576", "bgr,ours,cpu,2x4,2,2.5,4,2.0,2097152"),
    )
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")
    assert figures.bench_bgr(root).splitlines()[2:] == [
        "| peer | cpu | 2x4 | 5 | 4–6 | 1 | 1 |",
        "| ours | cpu | 2x4 | 2.5 | 2–4 | 2 | 2 |",
    ]
