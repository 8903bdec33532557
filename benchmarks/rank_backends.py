"""Writes ``ranking.json``, by which ``"auto"`` orders backends, from the rows under ``results/``: no GPU is needed.

Of each backend the latest row of a format and shape counts. What one backend alone was timed at ranks nothing, and is
left out.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import records, workloads
from benchmarks.measuring.own import RULES, WEIGHT
from benchmarks.measuring.suite import OWN

RANKING = Path(__file__).parents[1] / "packages/dvdq-kernels/src/dvdq_kernels/ranking.json"

Key = tuple[str, int, int | None, workloads.Shape]
"""Operation, widths of activations and of weights, and shape, as :class:`dvdq_kernels.call.Call` has them."""

FORMATS = {
    "gpu_linear": {
        f"{name}, product alone": ("quantized_linear", rule.bits, WEIGHT.bits, rule.block)
        for name, rule in RULES.items()
    },
    "gpu_rotate_quantize": {
        name.removeprefix("W4"): ("rotate_quantize", rule.bits, None, rule.block) for name, rule in RULES.items()
    },
}
"""Of each file's variants: operation, widths and block."""


def latest(folder: Path) -> dict[Key, dict[str, Mapping[str, str]]]:
    """One GPU's latest rows by backend, of each format and shape."""
    found: dict[Key, dict[str, Mapping[str, str]]] = defaultdict(dict)
    for benchmark, formats in FORMATS.items():
        path = folder / f"{benchmark}.csv"
        for row in csv.DictReader(path.read_text().splitlines()) if path.exists() else ():
            owner, _, backend = row["provider"].partition(" ")
            if owner != OWN or row["variant"] not in formats:
                continue
            operation, x_bits, bits, block = formats[row["variant"]]
            (sizes,) = workloads.parse(row["shape"])
            found[operation, x_bits, bits, (*sizes, block or sizes[-1])][backend] = row
    return found


def run_of(folder: Path) -> dict[str, Any] | None:
    """What a GPU's rows say of its backends; None if no two of them were timed at the same."""
    compared = {key: rows for key, rows in latest(folder).items() if len(rows) > 1}
    used = [row for rows in compared.values() for row in rows.values()]
    if not used:
        return None
    last = max(used, key=lambda row: row["date"])
    return {
        "device": last["device"],
        "capability": int(last["capability"].replace(".", "")),
        "date": last["date"],
        "commits": sorted({row["commit"] for row in used}),
        "versions": sorted({row["versions"] for row in used}),
        "rows": [
            {
                "operation": operation,
                "x_bits": x_bits,
                "bits": bits,
                "shape": list(shape),
                "seconds": {backend: float(row["p50_s"]) for backend, row in sorted(rows.items())},
            }
            for (operation, x_bits, bits, shape), rows in compared.items()
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads every GPU's folder anew."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=RANKING, help="where to write the ranking; in place")
    options = parser.parse_args(arguments)
    found = [run_of(folder) for folder in sorted(records.RESULTS.iterdir()) if folder.is_dir()]
    runs = [run for run in found if run is not None]
    options.output.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    for run in runs:
        print(f"{run['device']}: {len(run['rows'])} formats and shapes")
