"""The tuner on a CPU: Triton's kernels interpreted and CUDA's emulated, with a clock that says the same of all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from importlib import import_module
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import gpu_linear, gpu_weight_only, tune
from benchmarks.measuring import gpu
from benchmarks.measuring.case import Job
from benchmarks.measuring.gpu import Work
from benchmarks.tiles import tuner
from benchmarks.tiles.search import descend, neighbours
from benchmarks.tiles.tuner import Backend, Subject, time_all

from dvdq_kernels.backends.cupy.target import EMULATE
from dvdq_kernels.backends.triton.target import interprets
from dvdq_kernels.gpu import recording
from dvdq_kernels.refusals import absence
from dvdq_reference.spec.recipe import ActivationRule

CPU = torch.device("cpu")
SECONDS = 0.5
NEEDS = {name: pytest.mark.skipif(absence(name) is not None, reason=str(absence(name))) for name in ("triton", "cupy")}
BOTH = [pytest.param(name, marks=needs) for name, needs in NEEDS.items()]

TASKS = {
    "triton": [(17, 1, False), (17, 2, False), (1, 1, True), (2, 1, True), (2, 2, True)],
    "cupy": [(17, 1, False), (17, 2, False), (2, 1, True), (2, 2, False)],
}
"""Tokens, parts, and whether the loop decodes weights: from four tokens on it does not, nor where INT4 meets INT4."""


def clock(calls: Sequence[Callable[[], object]], repeat_ms: int) -> gpu.Timing:
    for call in calls:
        call()
    return gpu.Timing(SECONDS, SECONDS, SECONDS, 1024)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gpu, "require_gpu", lambda: CPU)
    monkeypatch.setattr(gpu, "measure", clock)
    yield
    torch.set_grad_enabled(True)


@pytest.mark.parametrize("name", BOTH)
def test_the_search_ends_at_a_config_without_a_faster_neighbour(name: str) -> None:
    tuning = import_module(f"dvdq_kernels.backends.{name}.tuning")
    start, goal = (tuning.Config(*(values[at] for values in tuning.SPACE.values())) for at in (0, -2))

    def distance(config: Any) -> float:
        return sum(
            abs(values.index(getattr(config, n)) - values.index(getattr(goal, n))) for n, values in tuning.SPACE.items()
        )

    def around(config: Any) -> list[Any]:
        return list(neighbours(config, tuning.SPACE))

    found = descend([start], around, lambda configs: {c: distance(c) for c in configs}, lambda: False)
    assert min(found, key=lambda config: found[config]) == goal
    found = descend([start], around, lambda configs: {c: distance(c) for c in configs}, lambda: True)
    assert list(found) == [start]


@NEEDS["cupy"]
def test_warps_are_exchanged() -> None:
    from dvdq_kernels.backends.cupy.tuning import SPACE, Config

    config = Config(128, 256, 64, 2, 4, 4, 8)
    assert replace(config, warps_m=4, warps_n=2) in neighbours(config, SPACE)


def test_what_does_not_run_well_takes_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class RefusalError(Exception):
        pass

    module = SimpleNamespace(choose=None)

    def call() -> None:
        if module.choose(None, CPU) == "refused":
            raise RefusalError

    stand_in = Backend(
        name="triton",
        integer=module,
        weight_only=None,
        compile_together=lambda launches, target: [None if launch == "broken" else launch for launch in launches],
        spills=lambda compiled: compiled == "spilling",
        refusal=RefusalError,
    )
    monkeypatch.setattr(tuner, "launches_of", lambda backend, call, device: [module.choose(None, device)])
    subject = Subject(module, [Job(call, lambda out: None, Work(1))])
    found = time_all(stand_in, subject, CPU, ["broken", "refused", "spilling", "fine"])
    assert found == {"broken": inf, "refused": inf, "spilling": inf, "fine": SECONDS}


@pytest.mark.parametrize("name", BOTH)
def test_picks_are_read_as_they_are_written(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if name == "triton" and not interprets():
        pytest.skip("needs TRITON_INTERPRET=1, under which a CPU runs the kernels")
    if name == "cupy":
        if shutil.which(os.environ.get("CXX") or "c++") is None:
            pytest.skip("needs a C++ compiler, by which a CPU runs the kernels")
        monkeypatch.setenv(EMULATE, "80")
    monkeypatch.setattr(tune, "CROSSING_TOKENS", (1, 2))
    monkeypatch.setattr(tune, "CROSSING_SHAPE", (24, 256))
    monkeypatch.setattr(tune, "FEW_TOKENS", (2,))
    monkeypatch.setattr(tune, "RULES", {"W4A8 token": ActivationRule(8), "W4A4 block": ActivationRule(4, 128)})
    monkeypatch.setattr(gpu_linear, "SUITE", replace(gpu_linear.SUITE, quick=((17, 24, 256),)))
    monkeypatch.setattr(gpu_weight_only, "SUITE", replace(gpu_weight_only.SUITE, shapes=((1, 16, 256),)))
    tiles = import_module(f"benchmarks.tiles.{name}")
    # Of those that are compiled together the first alone does, since each of them is run here.
    stand_in = replace(
        tiles.BACKEND,
        compile_together=lambda launches, target: [launches[0], *(None for _ in launches[1:])],
        spills=lambda compiled: False,
    )
    monkeypatch.setattr(tiles, "BACKEND", stand_in)
    target = tmp_path / "picks.json"
    tune.main(["--backend", name, "--quick", "--output", str(target)])
    run = json.loads(target.read_text())["runs"][-1]
    assert (run["device"], run["capability"], run["unpack_from"]) == ("cpu", 80, 4)
    assert set(run["versions"]) == {"torch", name}

    tuning = stand_in.module("tuning")
    tasks = [tuning.Task(**row["task"]) for row in run["rows"]]
    assert [(task.tokens, task.parts, task.decodes) for task in tasks] == TASKS[name]
    monkeypatch.setattr(tuning, "PICKS", target)
    with recording(80, "cpu"):
        assert tuning.unpack_from(CPU) == 4
        for task, row in zip(tasks, run["rows"], strict=True):
            pick = tuning.choose(task, CPU)
            assert pick.source == f"measured on cpu, {run['date']}"
            assert row["config"] == {f.name: getattr(pick, f.name) for f in fields(pick) if f.name != "source"}
            assert row["microseconds"] == row["rule_microseconds"] == SECONDS * 1e6
            assert row["tried"] > 1


@NEEDS["triton"]
def test_triton_compiles_what_a_launch_will_find() -> None:
    from benchmarks.tiles.triton import compile_together

    from dvdq_kernels.backends.triton.launch import launch

    class Kernel:
        """Keeps by what names it was compiled, and started."""

        def __init__(self) -> None:
            self.asked: list[dict[str, Any]] = []

        def warmup(self, grid: tuple[int, ...], **options: Any) -> str:
            self.asked.append(options)
            return "compiled"

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda **options: self.asked.append(options)

    kernel = Kernel()

    def start() -> None:
        launch(kernel, (1,), {"x_ptr": x}, {"SIZE": 4}, warps=8, stages=2)

    x = torch.zeros(4)
    with recording(80) as record:
        start()
    assert compile_together(record.launches, 80) == ["compiled"]
    start()
    assert kernel.asked[0] == kernel.asked[1]


@NEEDS["cupy"]
def test_cupy_sees_what_spills_and_what_does_not_compile(caplog: pytest.LogCaptureFixture) -> None:
    from benchmarks.machine_code import product
    from benchmarks.tiles.cupy import BACKEND

    from dvdq_kernels.backends.cupy.linear import integer_linear

    tuning = BACKEND.module("tuning")
    launches = []
    for tile in ((64, 64, 64, 2, 2), (256, 256, 64, 2, 2), (64, 64, 64, 0, 2)):
        subject = Subject(BACKEND.integer, [])
        with subject.choosing(tuning.Config(*tile, stages=2, group_m=8)), recording(89) as record:
            product(integer_linear, 4096, 256, 256, x_bits=4, packed=True, blocks=1)
        launches += record.launches
    fine, spilling, broken = BACKEND.compile_together(launches, 89)
    [refused] = caplog.messages
    assert "64×64×64" in refused
    assert "division by zero" in refused
    assert broken is None
    assert (BACKEND.spills(fine), BACKEND.spills(spilling)) == (False, True)
