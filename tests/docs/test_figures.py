"""Figures in the pages are those of the recorded data, and the script that writes them notices when they are not."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
FULL = {
    "row": {"label": "Full precision", "bits": "", "bytes": 3_500_000, "average_bits": None},
    "means": {},
    "words": {"colour": 1.0, "shape": 1.0},
    "bytes_before": 3_500_000,
    "pass_seconds": 1.851,
}
ROW = {
    "row": {"label": "DVD-Quant", "bits": "W4A6", "bytes": 10**6, "average_bits": 6.0},
    "means": {"psnr_db": 25.04, "ssim": 0.9},
    "words": {"colour": 1.0, "shape": 0.75},
    "bytes_before": 3_500_000,
    "pass_seconds": 1.234,
}


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    """The script, beside which its own modules lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs")
        yield importlib.import_module("figures")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs/data").mkdir(parents=True)
    (tmp_path / "README.md").write_text("a\n<!-- begin:demo-table -->\n<!-- end:demo-table -->\nb\n")
    (tmp_path / "docs/data/demo-results.json").write_text(json.dumps({"rows": [FULL, ROW]}))
    return tmp_path


def test_every_figure_in_the_pages_is_current(figures: ModuleType) -> None:
    assert figures.stale(ROOT) == []


def test_a_figure_is_written_from_its_row_once(figures: ModuleType, root: Path) -> None:
    text = figures.rewrite((root / "README.md").read_text(), root)
    assert "| DVD-Quant W4A6 | 1.00 | 3.50 × | 6.00 | 1.23 | 1.50 × | 25.0 | 0.900 | – | 100% | 75% |" in text
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
    (root / "docs/data/demo-results.json").write_text(json.dumps({"rows": [FULL, {**ROW, "means": {"psnr_db": 30.0}}]}))
    assert figures.stale(root) == [page]


def test_a_region_that_nobody_makes_is_an_error(figures: ModuleType, root: Path) -> None:
    with pytest.raises(KeyError):
        figures.rewrite("<!-- begin:nothing -->\n<!-- end:nothing -->", root)
    with pytest.raises(ValueError, match="without its end"):
        figures.rewrite("<!-- begin:demo-table -->\n", root)


def write_rows(root: Path, *rows: str) -> None:
    folder = root / "benchmarks/results/device"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(rows) + "\n")


def test_of_runs_on_one_machine_the_last_one_counts(figures: ModuleType, root: Path) -> None:
    write_rows(
        root,
        "operation,provider,device,shape,p20_s,p50_s,p80_s,ratio,peak_bytes,date",
        *(
            "bgr,peer,cpu,2x4,1,2,3,1.0,1048576,a",
            "bgr,retired,cpu,2x4,1,2,3,1.0,1048576,a",
            "bgr,ours,cpu,2x4,1,2,3,2,0,a",
        ),
        *("bgr,peer,cpu,2x4,4,5,6,1.0,1048576,b", "bgr,ours,cpu,2x4,2,2.5,4,2.0,2097152,b"),
    )
    assert figures.bench_bgr(root).splitlines()[2:] == [
        "| peer | cpu | 2x4 | 5 | 4–6 | 1 | 1 |",
        "| ours | cpu | 2x4 | 2.5 | 2–4 | 2 | 2 |",
    ]


def test_streaming_shows_the_peak_beside_its_bound(figures: ModuleType, root: Path) -> None:
    assert figures.bench_streaming(root) == figures.NOTHING_YET
    write_rows(
        root,
        "operation,shape,device,gb_per_s,bytes_before,bytes_after,largest_tensor,bound_bytes,peak_bytes,note,date",
        *(f"streaming,3 + 8 blocks,cpu,0.05,4400000000,1200000000,113000000,1678000000,{p},busy,{p}" for p in (7, 8)),
        "streaming,3 + 8 blocks,other,0.05,4400000000,1200000000,113000000,1678000000,1100000000,,a",
    )
    assert figures.bench_streaming(root).splitlines()[2:] == [
        "| 3 + 8 blocks | cpu (busy) | 4.40 | 1.20 | 113 | 0 | 1678 | 50 |",
        "| 3 + 8 blocks | other | 4.40 | 1.20 | 113 | 1100 | 1678 | 50 |",
    ]


GPU = "operation,provider,variant,shape,device,p20_s,p50_s,p80_s,ratio,tb_per_s,peak_bytes,note,date"


def test_linears_are_a_line_a_shape_with_the_last_row_of_each_provider(figures: ModuleType, root: Path) -> None:
    assert figures.bench_linear(root) == figures.NOTHING_YET
    write_rows(
        root,
        GPU,
        "linear,bf16,,8x4x2,H100,1,0.012,3,1.0,1,0,,a",
        "linear,dvdq-kernels triton,W4A8,8x4x2,H100,1,0.01,3,1.2,1,0,,b",
        "linear,dvdq-kernels triton,W4A8,8x4x2,H100,1,0.008,3,1.5,1,0,,c",
        "linear,bf16,,9x4x2,H100,1,0.024,3,1.0,1,0,,d",
        "linear,peer,A8W4,9x4x2,H100,1,0.02,3,1.25,1,0,,e",
        "linear,bf16,,9x4x2,A100,1,0.05,3,1.0,1,0,,f",
    )
    assert figures.bench_linear(root).splitlines() == [
        "H100:",
        "",
        "| tokens × out × in | bf16 (ms) | triton W4A8 | peer A8W4 |",
        "| --- | ---: | ---: | ---: |",
        "| 8 × 4 × 2 | 12 | 1.5 × | – |",
        "| 9 × 4 × 2 | 24 | – | 1.25 × |",
        "",
        "A100:",
        "",
        "| tokens × out × in | bf16 (ms) |",
        "| --- | ---: |",
        "| 9 × 4 × 2 | 50 |",
    ]


def test_what_is_bound_by_bytes_is_compared_with_a_copy(figures: ModuleType, root: Path) -> None:
    make = figures.FIGURES["bench-weight-only"]
    assert make(root) == figures.NOTHING_YET
    write_rows(
        root,
        GPU,
        "weight_only,ours,W4A16,16x4x2,H100,9e-6,1e-5,1.1e-5,0.754,2.5,0,,a",
        "weight_only,copy,,2x4x2,H100,9e-6,1e-5,1.1e-5,1.0,3.1,0,,b",
        "rotate_quantize,ours,A8,16x2,H100,9e-6,1e-5,1.1e-5,0.8,2.5,0,,a",
    )
    assert make(root).splitlines()[4:] == [
        "| copy | 2 × 4 × 2 | 10 | 9–11 | 3.1 | 100% |",
        "| ours W4A16 | 16 × 4 × 2 | 10 | 9–11 | 2.5 | 75% |",
    ]
    assert "| ours A8 | 16 × 2 | 10 | 9–11 | 2.5 | 80% |" in figures.FIGURES["bench-rotate-quantize"](root)


def test_whole_models_say_how_many_rows_differ(figures: ModuleType, root: Path) -> None:
    assert figures.bench_bgr_models(root) == figures.NOTHING_YET
    write_rows(
        root,
        GPU,
        "bgr_model,dvdq-kernels triton,Wan,400 layers,H100,30,30,30,7.5,0.1,1073741824,1 of 9 rows differ,a",
        "bgr_layer,dvdq-kernels triton,Wan,2x4,H100,30,30,30,7.5,0.1,1073741824,1 of 9 rows differ,a",
    )
    assert figures.bench_bgr_models(root).splitlines()[4:] == [
        "| Wan | 400 layers | 30 | 7.5 | 1.00 | 1 of 9 rows differ |"
    ]
