"""One stage: what ``benchmarks/gpu_quick.py`` starts."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from benchmarks.quick.log import Log
from benchmarks.quick.steps import Steps

parser = argparse.ArgumentParser()
parser.add_argument("function", help="module:name")
for name in ("stage", "backend", "device", "folder", "avoid"):
    parser.add_argument(f"--{name}", default="")
parser.add_argument("--end", type=float, required=True)
options = parser.parse_args()
module, _, name = options.function.partition(":")
avoid = frozenset(filter(None, options.avoid.split(",")))
log = Log(Path(options.folder))
getattr(import_module(module), name)(Steps(log, options.stage, options.backend, options.device, options.end, avoid))
