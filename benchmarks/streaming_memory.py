"""``dvdq quantize`` of a checkpoint of 4 GB with HunyuanVideo's own layers: seconds, and the most memory it held.

The checkpoint is HunyuanVideo with fewer blocks, random normal weights in bfloat16, written tensor by tensor. Recorded
only if the peak, everything of the process counted, stays below six times the largest tensor and 1 GB, and if codes
read back are those of their weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from diffusers import HunyuanVideoTransformer3DModel

from benchmarks.measuring.records import append, commit, now, processor, resident, run_json, versions
from dvdq_models.checkpoint.layout import INDEX, TensorType, index_of
from dvdq_models.checkpoint.lazy import open_folder
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.layers.encoding import encode_weight
from dvdq_models.streaming.quantizer import quantize_checkpoint
from dvdq_reference.spec.recipe import Recipe

NAME = "streaming_memory"

BLOCKS = {"num_layers": 3, "num_single_layers": 8}
RECIPE = Recipe.named("dvd-quant", "W4A6")
THREADS = 2
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


def record(folder: str | None, note: str) -> None:
    """Write, quantize, check, record; nothing stays but the row."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source, destination = Path(place) / "full", Path(place) / "quantized"
        source.mkdir()
        run_json(NAME, "write", str(source), threads=THREADS)
        found = run_json(NAME, "quantize", str(source), str(destination), threads=THREADS)
        check(source, destination)
    bound = 6 * found["largest_tensor"] + 10**9
    row = Row(
        operation="streaming",
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
        case options:
            parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
            parser.add_argument("--folder", help="takes some 6 GB for the time of the run; default: the temporary one")
            parser.add_argument("--note", default="", help="goes into the row")
            record(**vars(parser.parse_args(options)))
