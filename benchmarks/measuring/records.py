"""What every benchmark shares: one CSV row a measurement, and timing on a CPU in a process of its own.

A row is appended to ``benchmarks/results/<device>/<benchmark>.csv``, and never changed; ``$BENCHMARK_RESULTS`` names
another folder for ``results``. On a CPU each provider runs in its own process with the same thread count, so that none
sees another's memory, caches or imports.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

import dvdq_kernels

ROOT = Path(__file__).parents[2]
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or ROOT / "benchmarks/results")


@dataclass(frozen=True)
class Measurement:
    """What a process reports: seconds of each repeat, and bytes above what was resident before the first."""

    seconds: list[float]
    peak_bytes: int
    versions: str


@dataclass(frozen=True)
class Row:
    """One line of a CSV file. ``ratio`` is the reference provider's median over this one's, in the same run."""

    operation: str
    provider: str
    shape: str
    device: str
    threads: int
    p20_s: float
    p50_s: float
    p80_s: float
    ratio: float
    peak_bytes: int
    repeats: int
    versions: str
    commit: str
    date: str


def measure(function: Callable[[], object], repeats: int, warm_up: bool = True) -> None:
    """Run ``function`` and print the measurement: the body of a provider's process."""
    _reset_peak()
    before = resident("VmRSS")
    if warm_up:
        function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    found = versions("numpy", "numba", "orbitquant")
    print(json.dumps(asdict(Measurement(seconds, resident("VmHWM") - before, found))))


def in_process(benchmark: str, provider: str, threads: int, python: str = sys.executable) -> Measurement:
    """The measurement that ``benchmark provider`` prints when run on its own with ``threads`` threads."""
    return Measurement(**run_json(benchmark, provider, threads=threads, python=python))


def run_json(benchmark: str, *arguments: str, threads: int, python: str = sys.executable) -> dict[str, Any]:
    """The JSON that a benchmark prints as its last line when run on its own with ``threads`` threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [python, "-m", "benchmarks", benchmark, *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def record(
    benchmark: str, operation: str, shape: str, threads: int, reference: str, measured: dict[str, list[Measurement]]
) -> list[Row]:
    """Append and print one row a provider; several measurements of one are pooled, and its largest peak counts."""
    pooled = {name: sorted(s for m in runs for s in m.seconds) for name, runs in measured.items()}
    medians = {name: _quantile(seconds, 0.5) for name, seconds in pooled.items()}
    device, at, date = processor(), commit(), now()
    rows = [
        Row(
            operation,
            name,
            shape,
            device,
            threads,
            *(round(_quantile(seconds, share), 5) for share in (0.2, 0.5, 0.8)),
            ratio=round(medians[reference] / medians[name], 3),
            peak_bytes=max(m.peak_bytes for m in measured[name]),
            repeats=len(seconds),
            versions=measured[name][0].versions,
            commit=at,
            date=date,
        )
        for name, seconds in pooled.items()
    ]
    append(benchmark, device, rows)
    for row in rows:
        print(f"{row.provider:32} {row.p50_s:9.4f} s  ratio {row.ratio:8.3f}  peak {row.peak_bytes / 2**20:7.1f} MiB")
    return rows


def append(benchmark: str, device: str, rows: Sequence[Any]) -> None:
    """Append rows, all of one dataclass, to the file of ``benchmark`` and ``device``; its header names their fields."""
    folder = RESULTS / re.sub(r"[^\w.]+", "-", device).strip("-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}.csv"
    names = [f.name for f in fields(rows[0])]
    header = path.read_text().partition("\n")[0] if path.exists() else None
    if header not in (None, ",".join(names)):
        raise SystemExit(f"{path}: its rows have other columns")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        if header is None:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def versions(*packages: str) -> str:
    """Of Python, torch, this project, and those of ``packages`` that are installed."""
    found = [f"python {platform.python_version()}", f"torch {torch.__version__}", f"dvdq {dvdq_kernels.__version__}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(dict.fromkeys(found))


@cache
def commit() -> str:
    """The commit of the working tree, short; in a copy without its repository, what ``BENCHMARK_COMMIT`` says.

    Where nobody says, it is ``unknown``: what was measured is worth more than its label, and a repository that only
    surrounds the copy says nothing of it.
    """
    if said := os.environ.get("BENCHMARK_COMMIT"):
        return said
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-cdup", "--short", "HEAD"]
    try:
        up, short = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return short if not up else "unknown"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[0] if len(ordered) == 1 else quantiles(ordered, n=10, method="inclusive")[round(10 * share) - 1]


def _reset_peak() -> None:
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` or, since the last reset, ``VmHWM``; where there is no /proc, the peak since the start."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    match = re.search(rf"{field}:\s+(\d+) kB", status.read_text())
    assert match is not None
    return int(match[1]) * 1024


def processor() -> str:
    """The processor's name and how many of its cores there are."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
