"""A checkpoint of 5 GB with HunyuanVideo's own layers, streamed: seconds, and the most memory the process held.

The checkpoint is HunyuanVideo with fewer blocks, random normal weights in bfloat16, written tensor by tensor.
``dvdq quantize`` of it, and with ``--export`` ``dvdq export --for comfyui``, are recorded only if the peak, everything
of the process counted, stays below six times the largest tensor and 1 GB. Of ``quantize`` codes read back must be those
of their weights; a second export, killed twice at random and begun again, must be the same file to the byte.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel

from benchmarks.measuring.records import ROOT, append, commit, now, processor, resident, run_json, versions
from dvdq_models.checkpoint.layout import INDEX, TensorType, index_of
from dvdq_models.checkpoint.lazy import open_folder
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.comfyui import export_checkpoint
from dvdq_models.layers.encoding import encode_weight
from dvdq_models.streaming.quantizer import quantize_checkpoint
from dvdq_reference.spec.recipe import Recipe

NAME = "streaming_memory"

BLOCKS = {"num_layers": 3, "num_single_layers": 8}
RECIPE = Recipe.named("dvd-quant", "W4A6")
THREADS = 2
KILLS = 2
CHECKED = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.7.norm.linear")


@dataclass(frozen=True)
class Row:
    """One line of the CSV file; ``bound_bytes`` is six times ``largest_tensor`` and 1 GB."""

    operation: str
    shape: str
    device: str
    threads: int
    seconds: float
    gb_per_s: float
    bytes_before: int
    bytes_after: int
    largest_tensor: int
    bound_bytes: int
    peak_bytes: int
    note: str
    versions: str
    commit: str
    date: str


def write_checkpoint(folder: Path) -> None:
    """A transformer's folder of random normal weights, one tensor in memory at a time."""
    with init_empty_weights():
        model = HunyuanVideoTransformer3DModel(**BLOCKS)
    types = {name: TensorType(tuple(t.shape), torch.bfloat16) for name, t in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    with WeightFiles(folder, types, max_shard=10**9) as files:
        for name, type_ in types.items():
            files.write(name, torch.randn(type_.shape, generator=generator).mul_(0.02).to(type_.dtype))
        (folder / INDEX).write_text(json.dumps(index_of(files.shards, types)))
    (folder / "config.json").write_text(model.to_json_string())


def quantize(source: Path, destination: Path) -> None:
    """Quantize and print what was measured: the body of a process of its own."""
    report = quantize_checkpoint(source, destination, RECIPE)
    found = dataclasses.asdict(dataclasses.replace(report, transformers={}, destination=Path()))
    found.pop("destination")
    print(json.dumps({**found, "peak_bytes": resident("VmHWM")}))


def check(source: Path, destination: Path) -> None:
    """Codes of a few layers, made again."""
    weights, codes = open_folder("check", source), open_folder("check", destination)
    for name in CHECKED:
        again = encode_weight(weights[f"{name}.weight"].read(), RECIPE)
        for part, tensor in again.items():
            if not torch.equal(codes[f"{name}.{part}"].read(), tensor):
                raise SystemExit(f"not recorded: {name}.{part} is not that of its weight")


def export(source: Path, destination: Path) -> None:
    """Export and print what was measured: the body of a process of its own."""
    report = export_checkpoint(source, destination)
    largest = max(tensor.type.nbytes for tensor in open_folder(NAME, source).values())
    numbers = {"largest_tensor": largest, "peak_bytes": resident("VmHWM")}
    print(json.dumps({**report.to_dict(), **numbers}))


def check_killed(source: Path, whole: Path, again: Path, seconds: float) -> None:
    """Export once more, killed while it works, as long as ``seconds`` in all, and compare."""
    part = again.with_name(f".{again.name}.part")
    command = [sys.executable, "-m", "benchmarks", NAME, "export", str(source), str(again)]
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and not part.exists():
            time.sleep(0.1)
        time.sleep(random.uniform(0.1, 0.9) * seconds / KILLS)
        process.kill()
        process.wait()
        if again.exists():
            raise SystemExit("not recorded: a run ended before it was killed")
    run_json(NAME, "export", str(source), str(again), threads=THREADS)
    digests = set()
    for path in (whole, again):
        with path.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").digest())
    if len(digests) != 1:
        raise SystemExit("not recorded: a run that was killed ended with other bytes")


def record(folder: str | None, note: str, *, exported: bool) -> None:
    """Write, quantize or export, check, record; nothing stays but the row."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source, destination = Path(place) / "full", Path(place) / "quantized"
        source.mkdir()
        run_json(NAME, "write", str(source), threads=THREADS)
        if exported:
            destination = destination.with_suffix(".safetensors")
            found = run_json(NAME, "export", str(source), str(destination), threads=THREADS)
            check_killed(source, destination, Path(place) / "again.safetensors", found["seconds"])
        else:
            found = run_json(NAME, "quantize", str(source), str(destination), threads=THREADS)
            check(source, destination)
    bound = 6 * found["largest_tensor"] + 10**9
    row = Row(
        operation="export" if exported else "streaming",
        shape=f"HunyuanVideo, {BLOCKS['num_layers']} + {BLOCKS['num_single_layers']} blocks",
        device=processor(),
        threads=THREADS,
        seconds=round(found["seconds"], 2),
        gb_per_s=round(found["bytes_read"] / found["seconds"] / 1e9, 4),
        bytes_before=found["bytes_read"],
        bytes_after=found["bytes_written"],
        largest_tensor=found["largest_tensor"],
        bound_bytes=bound,
        peak_bytes=found["peak_bytes"],
        note=note,
        versions=versions("numpy", "numba", "diffusers"),
        commit=commit(),
        date=now(),
    )
    print(row)
    if row.peak_bytes > bound:
        raise SystemExit("not recorded: more memory than the bound")
    append(NAME, row.device, [row])


def main(arguments: Sequence[str]) -> None:
    """All, or one half of it in a process of its own."""
    match arguments:
        case ["write", source]:
            write_checkpoint(Path(source))
            print("{}")
        case ["quantize", source, destination]:
            quantize(Path(source), Path(destination))
        case ["export", source, destination]:
            export(Path(source), Path(destination))
        case options:
            parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
            parser.add_argument("--folder", help="takes some 6 GB for the time of the run; default: the temporary one")
            parser.add_argument("--note", default="", help="goes into the row")
            parser.add_argument(
                "--export", action="store_true", dest="exported", help="for ComfyUI, in place of quantize"
            )
            record(**vars(parser.parse_args(options)))
