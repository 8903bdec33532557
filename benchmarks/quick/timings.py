"""Stages that say how fast kernels are: benchmarks of this folder at few shapes, and passes of whole models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks import gpu_bgr, gpu_linear, gpu_rotate_quantize, gpu_weight_only
from benchmarks.measuring import workloads
from benchmarks.measuring.suite import OWN
from benchmarks.quick.checks import able
from benchmarks.quick.steps import Steps
from dvdq_kernels.backend import Preference
from dvdq_kernels.registry import forget, registry

LINEARS: tuple[workloads.Shape, ...] = (
    (118_800, 12288, 3072),
    (118_800, 3072, 12288),
    (75_600, 5120, 5120),
    (32_760, 8960, 1536),
    (32_760, 1536, 1536),
)
ACTIVATIONS: tuple[workloads.Shape, ...] = ((118_800, 3072), (75_600, 5120), (32_760, 1536), (32_760, 8960))
PASSES = {"wan2.1-1.3b": ("81x480x832", 3, 40, 16), "hunyuan-video-13b": ("129x544x960", 1, 120, 64)}
"""Models, the videos that their makers show, rounds of one pass; seconds and gigabytes without which none is begun."""
METHODS = ("dvd-quant:W4A8", "dvd-quant:W4A4")
FINISHING = "wan2.1-1.3b", "81x480x832", 5
"""The model, the video and the rounds of a pass that finishes."""


def linears(step: Steps) -> None:
    """Product alone and whole, both backends in one process, against cuBLAS in bf16 and its int8 product."""
    for shape in LINEARS:
        options = ["--only", OWN, "--backend", ",".join(able()), "--shapes", workloads.name(shape)]
        step(workloads.name(shape), gpu_linear.main, options, least=8)


def rotations(step: Steps) -> None:
    """In one pass with the quantization, against a copy."""
    for shape in ACTIVATIONS:
        options = ["--backend", ",".join(able()), "--shapes", workloads.name(shape)]
        step(workloads.name(shape), gpu_rotate_quantize.main, options, least=5)


def weight_only(step: Steps) -> None:
    """W4A16 of one token and of sixteen."""
    for shape in gpu_weight_only.SUITE.quick:
        options = ["--only", OWN, "--backend", ",".join(able()), "--shapes", workloads.name(shape)]
        step(workloads.name(shape), gpu_weight_only.main, options, least=5)


def bgr(step: Steps) -> None:
    """Every 4-bit linear of HunyuanVideo."""
    workloads.MODELS = {"HunyuanVideo": workloads.MODELS["HunyuanVideo"]}
    for backend in able():
        step(backend, gpu_bgr.main, ["--backend", backend], least=20)


def passes(step: Steps) -> None:
    """A pass of a whole model with random weights in bfloat16, W4A8 and W4A4, by each backend; needs diffusers."""
    room = torch.cuda.get_device_properties(0).total_memory if step.device == "cuda" else 0
    for model, (video, rounds, least, gigabytes) in PASSES.items():
        if room < gigabytes * 10**9:
            step.log.write(step.stage, step=model, left_out=f"needs a GPU with {gigabytes} GB")
            continue
        for backend in able():
            step(f"{model} {backend}", _pass, step, model, backend, video, rounds, least=least)


def _pass(step: Steps, model: str, backend: str, video: str, rounds: int) -> dict[str, Any]:
    from dvdq_eval.latency.run import measure_latency
    from dvdq_eval.methods import parse_methods
    from dvdq_eval.passes.subject import open_subject
    from dvdq_eval.records import to_json

    subject = open_subject("gpu_quick", model, video)
    methods = parse_methods("gpu_quick", METHODS)
    with preferred(backend):
        measured = measure_latency(subject, methods, rounds=rounds, device=torch.device(step.device))
    record: dict[str, Any] = json.loads(to_json(measured))
    return record


def finish(step: Steps) -> None:
    """A pass that finishes, with its second sets of codes on the device and in main memory; needs diffusers."""
    step(FINISHING[0], _finishing_passes, step.device, *FINISHING, least=25)


def _finishing_passes(on: str, model: str, video: str, rounds: int) -> dict[str, Any]:
    """By where the sets lie: bytes of the weights there, those of each pass beside them, and its seconds, in turns."""
    from dvdq_eval.latency.taps import clock_of
    from dvdq_eval.machine import dtype_on, peak_bytes
    from dvdq_eval.passes.running import build, weight_bytes
    from dvdq_eval.passes.subject import open_subject
    from dvdq_models.running.placement import FinishOn, offload_finish
    from dvdq_models.switching.hook import BitSwitch, hook_of
    from dvdq_reference.spec.recipe import BitSchedule, Recipe

    class Finishing(BitSwitch):
        def before(self, *place: Any) -> Any:
            return replace(super().before(*place), finishing=True)

    device = torch.device(on)
    clock, subject = clock_of(device), open_subject("gpu_quick", model, video)
    models = {place: build(subject, Recipe.named("dvd-quant-finish", "W4A4"), device) for place in FinishOn}
    offload_finish(models[FinishOn.HOST])
    inputs = subject.inputs(models[FinishOn.HOST], dtype_on(device), device)
    found: dict[str, Any] = {
        place: {"weights": weight_bytes(of), "pass": [], "seconds": []} for place, of in models.items()
    }
    outputs: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def run(place: FinishOn) -> None:
        start = clock.mark()
        outputs[place] = models[place](**inputs, return_dict=False)[0]
        end = clock.mark()
        clock.settle()
        found[place]["seconds"].append(clock.seconds(start, end))

    for _ in range(1 + rounds):
        for place in models:
            hook_of(models[place]).switch = Finishing(BitSchedule("constant", low=8, high=8))
            found[place]["pass"].append(peak_bytes(device, partial(run, place)))
    if not torch.equal(*outputs.values()):
        raise SystemExit("an output depends on where second sets of codes lie")
    for figures in found.values():  # the first round compiles, and learns the order of the layers
        del figures["pass"][0], figures["seconds"][0]
    return found


@contextmanager
def preferred(backend: str) -> Iterator[None]:
    """In a ``with`` block ``"auto"`` takes ``backend`` for whatever it can run, if nothing was measured on this GPU."""
    known = registry()
    before = known[backend]
    known[backend] = replace(before, preference=lambda call: Preference(99, "which gpu_quick times"))
    forget()
    try:
        yield
    finally:
        known[backend] = before
        forget()
