"""Tables of recorded rows: what benchmarks appended to ``benchmarks/results/`` and what was counted of machine code.

Each takes the root of the project and gives Markdown. Standard library only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

ROWS = Path("benchmarks/results")
CODE, ESTIMATES = Path("docs/data/machine-code.csv"), Path("docs/data/estimates.csv")
NOTHING_YET = "*Not recorded yet.*"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    names = list(header)
    rule = ["---", *["---:"] * (len(names) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, *rows))


def all_recorded(root: Path) -> list[dict[str, str]]:
    """The benchmark rows of every machine, oldest first in each file."""
    rows = []
    for file in sorted((root / ROWS).rglob("*.csv")):
        with file.open(newline="") as lines:
            rows += list(csv.DictReader(lines))
    return rows


def recorded(root: Path, operation: str) -> list[dict[str, str]]:
    """Those of one operation."""
    return [row for row in all_recorded(root) if row["operation"] == operation]


def latest_runs(rows: list[dict[str, str]], *keys: str) -> list[dict[str, str]]:
    """Of rows that agree in ``keys`` those of the last run: a run's rows share their date."""
    runs: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        run = runs.setdefault(tuple(row[key] for key in keys), [])
        if run and run[0]["date"] != row["date"]:
            run.clear()
        run.append(row)
    return [row for run in runs.values() for row in run]


def figures(number: float | str) -> str:
    """Three significant digits."""
    return f"{float(number):.3g}"


def bench_bgr(root: Path) -> str:
    """Time and memory of BGR, the latest run on each machine and shape."""
    rows = latest_runs(recorded(root, "bgr"), "device", "shape")
    if not rows:
        return NOTHING_YET
    header = ["provider", "device", "shape", "median (s)", "p20–p80 (s)", "times as fast", "peak memory (MiB)"]
    return table(
        header,
        (
            [
                row["provider"],
                row["device"],
                row["shape"],
                figures(row["p50_s"]),
                f"{figures(row['p20_s'])}–{figures(row['p80_s'])}",
                figures(row["ratio"]),
                f"{float(row['peak_bytes']) / 2**20:.0f}",
            ]
            for row in rows
        ),
    )


def bench_streaming(root: Path, operation: str = "streaming") -> str:
    """Time and memory of quantizing or exporting a checkpoint on disk, the latest run on each machine."""
    rows = latest_runs(recorded(root, operation), "device", "shape")
    if not rows:
        return NOTHING_YET
    header = [
        "checkpoint",
        "device",
        "GB before",
        "after",
        "MB of the largest tensor",
        "peak MB",
        "bound",
        "MB a second",
    ]
    return table(
        header,
        (
            [
                row["shape"],
                row["device"] + (f" ({row['note']})" if row["note"] else ""),
                f"{float(row['bytes_before']) / 1e9:.2f}",
                f"{float(row['bytes_after']) / 1e9:.2f}",
                f"{float(row['largest_tensor']) / 1e6:.0f}",
                f"{float(row['peak_bytes']) / 1e6:.0f}",
                f"{float(row['bound_bytes']) / 1e6:.0f}",
                figures(1e3 * float(row["gb_per_s"])),
            ]
            for row in rows
        ),
    )


def comfyui_weights(root: Path) -> str:
    """Weight error of our files for ComfyUI and of its own quantizer, the latest run on each machine."""
    rows = latest_runs(recorded(root, "comfyui-weights"), "device")
    if not rows:
        return NOTHING_YET
    header = ["format", "weights", "layers", "comfy-kitchen", "ours", "less error"]

    def line(row: dict[str, str]) -> list[str]:
        ours, theirs = float(row["ours"]), float(row["theirs"])
        numbers = [row["layers"], f"{theirs:.4f}", f"{ours:.4f}", f"{1 - ours / theirs:.0%}"]
        return [f"`{row['format']}`", row["weights"], *numbers]

    return table(header, map(line, rows))


def on_gpus(root: Path, operation: str) -> dict[str, list[dict[str, str]]]:
    """The rows of an operation by GPU: the last of each provider, variant and shape."""
    by_device: dict[str, list[dict[str, str]]] = {}
    for row in latest_runs(recorded(root, operation), "device", "shape", "provider", "variant"):
        by_device.setdefault(row["device"], []).append(row)
    return by_device


def by_device(tables: dict[str, str]) -> str:
    """Tables below the names of their GPUs."""
    return "\n\n".join(f"{device}:\n\n{text}" for device, text in tables.items()) or NOTHING_YET


def bench_linear(root: Path) -> str:
    """The linears of each shape on each GPU: the time in bf16, and how many times as fast every other is."""

    def of_device(rows: list[dict[str, str]]) -> str:
        shapes: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            shapes.setdefault(row["shape"], {})[f"{row['provider']} {row['variant']}".strip()] = row
        names = list(dict.fromkeys(name for found in shapes.values() for name in found if name != "bf16"))

        def line(shape: str, found: dict[str, dict[str, str]]) -> list[str]:
            times = [f"{figures(found[name]['ratio'])} ×" if name in found else "–" for name in names]
            bf16 = figures(1e3 * float(found["bf16"]["p50_s"])) if "bf16" in found else "–"
            return [shape.replace("x", " × "), bf16, *times]

        header = ["tokens × out × in", "bf16 (ms)", *(name.removeprefix("dvdq-kernels ") for name in names)]
        return table(header, (line(shape, found) for shape, found in shapes.items()))

    return by_device({device: of_device(rows) for device, rows in on_gpus(root, "linear").items()})


def on_cpus(root: Path, operation: str) -> dict[str, list[dict[str, str]]]:
    """The rows of an operation by processor, instruction set and threads: the last of each kind and shape."""
    places: dict[str, list[dict[str, str]]] = {}
    keys = ("device", "instructions", "threads", "shape", "provider", "variant")
    for row in latest_runs(recorded(root, operation), *keys):
        threads = f"{row['threads']} thread{'s' if row['threads'] != '1' else ''}"
        places.setdefault(f"{row['device']}, `{row['instructions']}`, {threads}", []).append(row)
    return places


def by_shape(rows: list[dict[str, str]]) -> list[tuple[str, dict[str, dict[str, str]]]]:
    """Rows by provider and variant, of each shape, the smaller linears first."""
    shapes: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        shapes.setdefault(row["shape"], {})[f"{row['provider']} {row['variant']}".strip()] = row

    def size(shape: str) -> tuple[int, int, int]:
        tokens, out_features, in_features = map(int, shape.split("x"))
        return out_features * in_features, in_features, tokens

    return sorted(shapes.items(), key=lambda item: size(item[0]))


CPU_COLUMNS = (
    ("W4A8, product alone", "W4A8 block 128, product alone", "times_float32"),
    ("of the limit", "W4A8 block 128, product alone", "limit_share"),
    ("W4A4, product alone", "W4A4 block 128, product alone", "times_float32"),
    ("of the limit", "W4A4 block 128, product alone", "limit_share"),
    ("W4A8", "W4A8 block 128", "times_float32"),
    ("W4A4", "W4A4 block 128", "times_float32"),
    ("W4A8, a scale a token", "W4A8 token", "times_float32"),
    ("W4A16", "W4A16", "times_float32"),
    ("W4A16, rotated", "W4A16, rotated", "times_float32"),
)


def bench_cpu_linear(root: Path) -> str:
    """The linears of each shape on each CPU: float32's time, and how many times as fast every other is."""

    def cell(found: dict[str, dict[str, str]], name: str, column: str) -> str:
        if name not in found or not found[name][column]:
            return "–"
        number = float(found[name][column])
        return f"{number:.0%}" if column == "limit_share" else f"{number:.2f} ×"

    def line(shape: str, found: dict[str, dict[str, str]]) -> list[str]:
        float32 = figures(1e3 * float(found["float32"]["p50_s"])) if "float32" in found else "–"
        cells = [cell(found, f"dvdq-kernels cpu {variant}", column) for _, variant, column in CPU_COLUMNS]
        return [shape.replace("x", " × "), float32, cell(found, "bfloat16", "times_float32"), *cells]

    header = ["tokens × out × in", "float32 (ms)", "bfloat16", *(name for name, *_ in CPU_COLUMNS)]
    places = on_cpus(root, "cpu_linear")
    return by_device({place: table(header, (line(*item) for item in by_shape(rows))) for place, rows in places.items()})


def bench_cpu_pass(root: Path) -> str:
    """Whole passes on each CPU."""

    def lines(rows: list[dict[str, str]]) -> Iterable[list[str]]:
        for row in rows:
            ratios = (f"{float(row[column]):.2f} ×" for column in ("times_float32", "times_bfloat16"))
            yield [row["shape"], row["provider"], figures(1e3 * float(row["p50_s"])), *ratios]

    header = ["model", "", "a pass (ms)", "of float32's speed", "of bfloat16's"]
    return by_device({place: table(header, lines(rows)) for place, rows in on_cpus(root, "cpu_pass").items()})


def bench_cpu_peers(root: Path) -> str:
    """Peers on each CPU: how many times as fast as float32 they are, and ours in the same run."""
    lines: dict[str, list[list[str]]] = {}
    operations = dict.fromkeys(row["operation"] for row in all_recorded(root) if " beside " in row["operation"])
    for operation in operations:
        for place, rows in on_cpus(root, operation).items():
            for shape, found in by_shape(rows):
                ours = found["dvdq-kernels cpu W4A8 block 128"]
                for name, row in found.items():
                    if row["provider"] == operation.partition(" beside ")[2]:
                        note = f"{row['note']}" if row["note"] else ""
                        cells = [figures(1e3 * float(row["p50_s"])), f"{float(row['times_float32']):.2f} ×"]
                        other = f"{float(ours['times_float32']):.2f} ×"
                        lines.setdefault(place, []).append([name, shape.replace("x", " × "), *cells, other, note])
    header = ["peer", "tokens × out × in", "ms", "of float32's speed", "our whole W4A8 linear, same run", ""]
    return by_device({place: table(header, rows) for place, rows in lines.items()})


def bench_cpu_roofline(root: Path) -> str:
    """What dot products alone and a copy reach on each CPU."""

    def rate(row: dict[str, str]) -> str:
        return f"{float(row['gops']):.0f} GOP/s" if row["gops"] else f"{float(row['gb_per_s']):.1f} GB/s"

    places = on_cpus(root, "roofline")
    return by_device(
        {
            place: table(
                ["", "median"],
                ([", ".join(filter(None, (row["provider"], row["variant"]))), rate(row)] for row in rows),
            )
            for place, rows in places.items()
        }
    )


def bench_cpu_compile(root: Path) -> str:
    """What the first call of a process takes on each CPU."""
    header = ["a linear of 80 tokens", "median (ms)", "p20–p80 (ms)"]

    def line(row: dict[str, str]) -> list[str]:
        low, middle, high = (figures(1e3 * float(row[name])) for name in ("p20_s", "p50_s", "p80_s"))
        return [row["variant"], middle, f"{low}–{high}"]

    places = on_cpus(root, "cpu_compile")
    return by_device({place: table(header, map(line, rows)) for place, rows in places.items()})


def bench_copies(root: Path, operation: str) -> str:
    """An operation that is bound by bytes, and which share of a copy's speed it reaches."""

    def of_device(rows: list[dict[str, str]]) -> str:
        header = ["", "shape", "median (µs)", "p20–p80 (µs)", "TB/s", "speed of a copy"]
        return table(
            header,
            (
                [
                    f"{row['provider']} {row['variant']}".strip(),
                    row["shape"].replace("x", " × "),
                    figures(1e6 * float(row["p50_s"])),
                    f"{figures(1e6 * float(row['p20_s']))}–{figures(1e6 * float(row['p80_s']))}",
                    figures(row["tb_per_s"]),
                    f"{float(row['ratio']):.0%}",
                ]
                for row in sorted(rows, key=lambda row: [int(size) for size in row["shape"].split("x")][::-1])
            ),
        )

    return by_device({device: of_device(rows) for device, rows in on_gpus(root, operation).items()})


def bench_bgr_models(root: Path) -> str:
    """BGR of whole models on each GPU."""

    def of_device(rows: list[dict[str, str]]) -> str:
        header = ["model", "", "seconds", "times as fast as the torch backend", "peak memory (GiB)", "sample"]
        return table(
            header,
            (
                [
                    row["variant"],
                    row["shape"],
                    figures(row["p50_s"]),
                    figures(row["ratio"]),
                    f"{float(row['peak_bytes']) / 2**30:.2f}",
                    row["note"],
                ]
                for row in rows
            ),
        )

    return by_device({device: of_device(rows) for device, rows in on_gpus(root, "bgr_model").items()})


def read_rows(root: Path, file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, none if it is not there."""
    if not (root / file).exists():
        return []
    with (root / file).open(newline="") as lines:
        return list(csv.DictReader(lines))


def machine_code(root: Path) -> str:
    """Registers a thread and the share of its warps that a multiprocessor holds, of each CUDA kernel on each GPU."""
    kernels: dict[str, dict[str, str]] = {}
    targets: dict[str, None] = {}
    for row in read_rows(root, CODE):
        targets[row["target"]] = None
        name = f"`{row['kernel']}` {row['tile']}".strip()
        cells = kernels.setdefault(f"{row['case']}: {name}", {})
        cells[row["target"]] = f"{row['registers']}, {float(row['occupancy']):.0%}"
    if not kernels:
        return NOTHING_YET
    header = ["", *(f"{int(target) // 10}.{int(target) % 10}" for target in targets)]
    return table(header, ([name, *(cells.get(t, "–") for t in targets)] for name, cells in kernels.items()))


BOUND = {"tensor cores": "", "instructions": "ⁱ", "memory": "ᵐ"}


def estimates(root: Path) -> str:
    """What a product takes at best on each GPU by both backends, in milliseconds, marked by what bounds it."""

    def of_gpu(rows: list[dict[str, str]]) -> str:
        shapes: dict[str, dict[str, list[dict[str, str]]]] = {}
        for row in rows:
            shapes.setdefault(row["shape"], {}).setdefault(row["format"], []).append(row)

        def line(shape: str, found: dict[str, list[dict[str, str]]]) -> list[str]:
            cells = [
                " / ".join(f"{figures(row['least_ms'])}{BOUND[row['bound']]}" for row in f) for f in found.values()
            ]
            return [shape.replace("x", " × "), figures(next(iter(found.values()))[0]["bf16_ms"]), *cells]

        return table(
            ["tokens × out × in", "bf16", *next(iter(shapes.values()))], (line(*item) for item in shapes.items())
        )

    gpus: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(root, ESTIMATES):
        gpus.setdefault(row["gpu"], []).append(row)
    backends = " / ".join(dict.fromkeys(row["backend"] for rows in gpus.values() for row in rows))
    return by_device({f"{gpu}, estimated, in ms, {backends}": of_gpu(rows) for gpu, rows in gpus.items()})


def teacache(root: Path) -> str:
    """What TeaCache skips and what it costs, the latest run of each pipeline, precision and threshold."""
    rows = latest_runs(recorded(root, "teacache"), "pipeline", "bits", "threshold")
    if not rows:
        return NOTHING_YET
    header = ["pipeline", "bits", "threshold", "videos × steps", "passes reused", "PSNR, mean (dB)", "worst"]
    return table(
        header,
        (
            [
                row["pipeline"],
                row["bits"],
                row["threshold"],
                f"{row['videos']} × {row['steps']}",
                f"{float(row['reused']):.0%}",
                row["psnr_mean"],
                row["psnr_min"],
            ]
            for row in rows
        ),
    )
