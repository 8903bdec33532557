"""Writes every figure of README.md and docs/ from recorded data, between ``<!-- begin:NAME -->`` and its ``end``.

``python docs/figures.py`` rewrites the marked regions and ``--check`` fails if one is not current. ``--adopt out/demo``
first takes over the results and the contact sheet of a new run of the demo, ``--adopt-tables wan out/tables`` what
``dvdq-eval table``, ``latency`` or ``memory`` wrote of a pipeline. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmark_tables import (
    NOTHING_YET,
    bench_bgr,
    bench_bgr_models,
    bench_copies,
    bench_cpu_compile,
    bench_cpu_linear,
    bench_cpu_pass,
    bench_cpu_peers,
    bench_cpu_roofline,
    bench_linear,
    bench_streaming,
    comfyui_weights,
    estimates,
    machine_code,
    table,
    teacache,
)

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("docs/data/demo-results.json")
PICTURE = Path("docs/images/demo.png")
TABLES, PICTURES = Path("docs/data/tables"), Path("docs/images/tables")
PIPELINES = ("wan", "hunyuan-video")
PUBLISHED = Path("packages/dvdq-models/tests/published.json")
REGION = re.compile(r"(<!-- begin:([\w-]+) -->\n).*?(<!-- end:\2 -->)", re.DOTALL)


def demo_table(root: Path) -> str:
    """Size, speed and quality of each configuration of the demo, one row each."""
    if not (root / DEMO).exists():
        return NOTHING_YET
    rows: list[dict[str, Any]] = json.loads((root / DEMO).read_text())["rows"]
    traits = sorted({trait for row in rows for trait in row["words"]})

    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    def cells(found: dict[str, Any]) -> list[str]:
        row = found["row"]
        return [
            f"{row['label']} {row['bits']}".strip(),
            number(row["bytes"] / 1e6, ".2f"),
            number(found["bytes_before"] / row["bytes"], ".2f") + " ×",
            number(row["average_bits"], ".2f"),
            number(found["pass_seconds"], ".2f"),
            number(rows[0]["pass_seconds"] / found["pass_seconds"], ".2f") + " ×",
            number(found["means"].get("psnr_db"), ".1f"),
            number(found["means"].get("ssim"), ".3f"),
            number(found["means"].get("latent_error"), ".3f"),
            *(number(found["words"].get(trait), ".0%") for trait in traits),
        ]

    header = [
        "", "MB", "compression", "average bits", "seconds a video", "times as fast",
        "PSNR (dB)", "SSIM", "latent error", *traits,
    ]  # fmt: skip
    return table(header, (cells(row) for row in rows))


def published_models(root: Path) -> str:
    """What becomes of each published transformer; a test of dvdq-models counts these figures."""
    models: list[dict[str, Any]] = json.loads((root / PUBLISHED).read_text())
    header = [
        "transformer",
        "parameters (B)",
        "integers",
        "weight-only",
        "kept",
        "before (GB)",
        "after (GB)",
        "smaller",
    ]
    return table(
        header,
        (
            [
                f"{model['name']} (`{model['hub']}`)",
                f"{model['parameters'] / 1e9:.2f}",
                *(str(model[treatment]) for treatment in ("quantize", "weight_only", "keep")),
                f"{model['bytes_before'] / 1e9:.2f}",
                f"{model['bytes_after'] / 1e9:.2f}",
                f"{model['bytes_before'] / model['bytes_after']:.2f} ×",
            ]
            for model in models
        ),
    )


def evaluated(root: Path, pipeline: str, name: str) -> str:
    """A table as ``dvdq-eval`` wrote it; its heading is left to the page."""
    file = root / TABLES / pipeline / f"{name}.md"
    return re.sub(r"\A# .*\n", "", file.read_text()).strip() if file.exists() else NOTHING_YET


CHOICES = (
    "DVD-Quant W4A4",
    "DVD-Quant plus W4A4",
    "DVD-Quant plus W4A8",
    "DVD-Quant finish W4A4",
    "DVD-Quant plus, rounded by its own videos W4A4",
    "DVD-Quant plus, rounded by its own videos W4A8",
    "DVD-Quant finish, rounded by its own videos W4A4",
)


def choosing(root: Path) -> str:
    """What each recipe that may be taken costs in bits and is worth on both bundled models."""
    found: dict[str, dict[str, dict[str, Any]]] = {title: {} for title in CHOICES}
    for pipeline in PIPELINES:
        file = root / TABLES / pipeline / "finish.json"
        for row in json.loads(file.read_text())["rows"] if file.exists() else []:
            if (title := f"{row['label']} {row['bits']}") in found:
                found[title][pipeline] = row
    if not all(len(rows) == len(PIPELINES) for rows in found.values()):
        return NOTHING_YET

    def line(title: str, rows: dict[str, dict[str, Any]]) -> list[str]:
        first, metrics = rows[PIPELINES[0]], [rows[pipeline]["metrics"] for pipeline in PIPELINES]
        psnr = [f"{of['psnr_db']['mean']:.1f}" for of in metrics]
        errors = [f"{of['latent_error']['mean']:.3f}" for of in metrics]
        return [title, f"{first['bits_per_weight']:.2f}", f"{first['average_bits']:.2f}", *psnr, *errors]

    kinds = [f"{kind}, {name}" for kind in ("PSNR (dB)", "latent error") for name in ("Wan", "HunyuanVideo")]
    header = ["recipe", "bits a weight", "activation bits", *kinds]
    return table(header, (line(title, rows) for title, rows in found.items()))


TABLE_NAMES = (*(f"table-{n}" for n in range(1, 6)), "figure-6", "beyond", "finish", "comfyui")
COSTS = ("latency", "memory")

FIGURES: dict[str, Callable[[Path], str]] = {
    "demo-table": demo_table,
    "choosing": choosing,
    "teacache": teacache,
    "published-models": published_models,
    "bench-bgr": bench_bgr,
    "bench-streaming": bench_streaming,
    "bench-export": partial(bench_streaming, operation="export"),
    "comfyui-weights": comfyui_weights,
    "bench-linear": bench_linear,
    "bench-rotate-quantize": lambda root: bench_copies(root, "rotate_quantize"),
    "bench-weight-only": lambda root: bench_copies(root, "weight_only"),
    "bench-bgr-models": bench_bgr_models,
    "bench-cpu-linear": bench_cpu_linear,
    "bench-cpu-pass": bench_cpu_pass,
    "bench-cpu-peers": bench_cpu_peers,
    "bench-cpu-roofline": bench_cpu_roofline,
    "bench-cpu-compile": bench_cpu_compile,
    "machine-code": machine_code,
    "estimates": estimates,
    **{
        f"{pipeline}-{name}": partial(evaluated, pipeline=pipeline, name=name)
        for pipeline in PIPELINES
        for name in (*TABLE_NAMES, *COSTS)
    },
    **{f"paper-{name}": partial(evaluated, pipeline="wan", name=f"{name}-paper") for name in TABLE_NAMES},
    "layers": lambda root: evaluated(root, "layers", "layers"),
}


def rewrite(text: str, root: Path) -> str:
    """``text`` with every region's figure made anew; a region that nobody makes is an error."""
    if text.count("<!-- begin:") != len(REGION.findall(text)):
        raise ValueError("a region without its end")

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{FIGURES[match[2]](root)}\n\n{match[3]}"

    return REGION.sub(fill, text)


def pages(root: Path) -> list[Path]:
    """The pages that may hold figures."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def stale(root: Path) -> list[Path]:
    """The pages whose figures are not those of the recorded data."""
    return [page for page in pages(root) if page.read_text() != rewrite(page.read_text(), root)]


def adopt(results: Path, root: Path) -> None:
    """Takes over what a run of the demo wrote."""
    for source, target in ((results / "results.json", DEMO), (results / "contact-sheet.png", PICTURE)):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, root / target)


def adopt_tables(pipeline: str, results: Path, root: Path) -> None:
    """Takes over what ``dvdq-eval`` wrote of a pipeline: tables as data and text, figures as pictures."""
    for kinds, target in (((".json", ".md"), TABLES), ((".png", ".svg"), PICTURES)):
        (root / target / pipeline).mkdir(parents=True, exist_ok=True)
        for file in sorted(results.iterdir()):
            if file.suffix in kinds:
                shutil.copyfile(file, root / target / pipeline / file.name)


def main() -> int:
    """Rewrites or checks all pages; 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a figure is not current")
    parser.add_argument("--adopt", type=Path, metavar="FOLDER", help="take over the demo's results from FOLDER first")
    parser.add_argument(
        "--adopt-tables",
        nargs=2,
        metavar=("PIPELINE", "FOLDER"),
        help="take over tables of a pipeline from FOLDER first",
    )
    options = parser.parse_args()
    if options.adopt is not None:
        adopt(options.adopt, ROOT)
    if options.adopt_tables is not None:
        pipeline, folder = options.adopt_tables
        adopt_tables(pipeline, Path(folder), ROOT)
    found = stale(ROOT)
    if options.check:
        for page in found:
            sys.stderr.write(f"{page.relative_to(ROOT)}: figures are not current; run python docs/figures.py\n")
        return int(bool(found))
    for page in found:
        page.write_text(rewrite(page.read_text(), ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
