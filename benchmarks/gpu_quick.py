"""All that one short session on a GPU can tell, in one command that loses nothing: ``python -m benchmarks gpu_quick``.

It needs torch and Triton and, for ``cupy``, what its extra brings; no network, git, nox or pytest. Each stage is a
process with a limit of its own: what it finds is a line of ``quick.jsonl``, on disk when it is found, and a row under
``results/``. A stage that hangs is killed, the step that it was in is named, its kernel is avoided from then on, and
the stage goes on with the next step in another process; so does one that crashed. Stages that do not fit into
``--budget`` are left out and named, so that ``--stages`` can run them another time.

    python -m benchmarks gpu_quick --prepare prepared.tar.gz    # compiles all of it for 9.0, on a machine without a GPU
    python -m benchmarks gpu_quick --prepared prepared.tar.gz --budget 520 --out "$OUT"
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.quick.log import Log

ROOT = Path(__file__).resolve().parents[1]
# Triton's cache names its files by absolute paths: it is in this folder wherever it was filled.
CACHE = Path(os.environ.get("GPU_QUICK_CACHE", "/var/tmp/dvdq-gpu-quick"))
RESTARTS = 3
"""Of a stage that died: each goes on after the step that it died in."""
ANSWER = "import torch; x = torch.ones(8, device='cuda'); assert float(x.sum()) == 8"
ANSWER_SECONDS = 40
GRACE = 15.0
"""Seconds past its limit after which a stage has hung: within it, a stage begins no other step."""
KILL_SECONDS = 20
EMULATED = 4
"""How many times its limit a stage gets on a CPU."""


@dataclass(frozen=True)
class Stage:
    """A process, and below what its limit it is not begun.

    Attributes:
        name: in the log, e.g. ``smoke cupy``.
        function: what runs, ``module:name`` (``benchmarks/quick``).
        seconds: its limit.
        least: left of the budget, below which it is left out.
        backend: whose kernels it is about, if one's.
        tool: what it runs under.
        environment: of its process.
    """

    name: str
    function: str
    seconds: float
    least: float
    backend: str = ""
    tool: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def of_each(name: str, function: str, seconds: float, least: float) -> tuple[Stage, ...]:
    """Both backends' stages, which run at the same time where nothing is timed."""
    return tuple(Stage(f"{name} {of}", function, seconds, least, of) for of in ("triton", "cupy"))


def sanitized(tool: str) -> Stage:
    """Torch hands out parts of large blocks, past whose ends a checker sees nothing wrong: here each is its own."""
    options = ("--tool", tool, "--target-processes", "all", "--error-exitcode", "9")
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Stage(tool, "benchmarks.quick.checks:watched", 75, 40, "cupy", ("compute-sanitizer", *options), alone)


NCU = (
    "ncu",
    "--clock-control",
    "none",
    "--set",
    "detailed",
    "-k",
    "regex:product_|integer_product",
    "-c",
    "6",
    "-f",
    "-o",
    "counters",
)

STAGES: tuple[tuple[Stage, ...], ...] = (
    (Stage("probe", "benchmarks.quick.checks:probe", 60, 10),),
    (Stage("compile", "benchmarks.quick.preparing:compile_ahead", 150, 20),),
    of_each("smoke", "benchmarks.quick.checks:smoke", 90, 10),
    of_each("exact", "benchmarks.quick.checks:exact", 90, 15),
    (Stage("linears", "benchmarks.quick.timings:linears", 120, 30),),
    (Stage("rotations", "benchmarks.quick.timings:rotations", 50, 20),),
    (Stage("passes", "benchmarks.quick.timings:passes", 240, 45),),
    (Stage("finish", "benchmarks.quick.timings:finish", 60, 30),),
    of_each("conformance", "benchmarks.quick.checks:conformance", 90, 20),
    (Stage("weight only", "benchmarks.quick.timings:weight_only", 45, 20),),
    (Stage("bgr", "benchmarks.quick.timings:bgr", 150, 30),),
    *((stage,) for stage in of_each("offsets", "benchmarks.quick.checks:offsets", 60, 20)),
    (Stage("counters", "benchmarks.quick.checks:counted", 60, 25, tool=NCU),),
    (sanitized("memcheck"),),
    (sanitized("racecheck"),),
)  # fmt: skip
"""In order; those of one tuple at the same time. The sanitizers are last and advisory: racecheck knows no multicast."""


@dataclass
class Running:
    """A stage's process, and when it has to be over."""

    stage: Stage
    process: subprocess.Popen[bytes]
    began: float
    seconds: float

    @property
    def is_over_time(self) -> bool:
        """Whether it did not end itself when it should."""
        return time.monotonic() - self.began > self.seconds + GRACE


class Run:
    """Stages one after the other.

    Attributes:
        folder: what is found goes there.
        device: ``cuda``, or ``cpu``, where kernels are emulated and interpreted.
        avoid: kernels to go around: ``wgmma``, or a backend.
    """

    def __init__(self, folder: Path, device: str, avoid: Iterable[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.device, self.avoid = folder.resolve(), device, list(avoid)
        self.log = Log(self.folder)

    def run(self, stages: Sequence[Sequence[Stage]], budget: float) -> None:
        """Runs what fits into ``budget`` seconds, and writes the summary whatever happens."""
        end = time.monotonic() + budget
        try:
            for group in stages:
                if not self._run_group(group, end):
                    self.log.write("run", error="the GPU does not answer any more: nothing else is run")
                    break
        finally:
            self.summarize(stages)

    def _run_group(self, group: Sequence[Stage], end: float) -> bool:
        """False if the GPU does not answer afterwards."""
        waiting = list(group)
        for _ in range(1 + RESTARTS):
            left, running = end - time.monotonic(), []
            for stage in waiting:
                if stage.backend in self.avoid:
                    self.log.write(stage.name, left_out=f"{stage.backend} is avoided")
                elif left <= stage.least:
                    self.log.write(stage.name, left_out=f"{left:.0f} s are left")
                elif stage.tool and self._program(stage.tool[0]) is None:
                    self.log.write(stage.name, left_out=f"{stage.tool[0]} is not installed")
                else:
                    limit = stage.seconds * (EMULATED if self.device == "cpu" else 1)
                    running.append(self._start(stage, min(limit, left)))
            died = self._finish(running)
            if died and self.device == "cuda" and not self._answers():
                return False
            waiting = [stage for stage in died if self.log.begun(stage.name)]
            if not waiting:
                break
        return True

    @property
    def failed(self) -> list[str]:
        """The steps that were wrong, hung or crashed."""
        return [f"{line['stage']}: {line['step']}" for line in self.log.read() if line.get("ok") is False]

    def _start(self, stage: Stage, seconds: float) -> Running:
        began = time.monotonic()
        command = [
            sys.executable, "-m", "benchmarks.quick", stage.function, "--stage", stage.name, "--backend", stage.backend,
            "--device", self.device, "--folder", str(self.folder), "--end", f"{began + seconds:.1f}",
            "--avoid", ",".join(self.avoid),
        ]  # fmt: skip
        if stage.tool:
            command = [str(self._program(stage.tool[0])), *stage.tool[1:], *command]
        with (self.folder / "output.txt").open("ab") as output:
            output.write(f"\n===== {stage.name}\n".encode())
            output.flush()
            process = subprocess.Popen(
                command,
                env=self._environment(stage),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Running(stage, process, began, seconds)

    def _finish(self, running: list[Running]) -> list[Stage]:
        """Waits for all, kills those over their limit, and gives the stages that died."""
        died = []
        while running:
            for one in list(running):
                code = one.process.poll()
                if code is None and not one.is_over_time:
                    continue
                running.remove(one)
                if code is None:
                    # The group that the process is the leader of: also what it started.
                    os.killpg(one.process.pid, signal.SIGKILL)
                    # A process does not end while the driver waits for its kernel: whether the GPU answers is asked.
                    with suppress(subprocess.TimeoutExpired):
                        one.process.wait(KILL_SECONDS)
                ended = "killed" if code is None else code
                self.log.write(one.stage.name, ended=ended, seconds=round(time.monotonic() - one.began, 1))
                if code != 0:
                    self._blame(one.stage, hung=code is None)
                    died.append(one.stage)
            time.sleep(0.05)
        return died

    def _blame(self, stage: Stage, hung: bool) -> None:
        """The step that a stage died in; if it hung, its kernel is gone around from now on."""
        step = self.log.unfinished(stage.name)
        if step is None:
            return
        kernel = "wgmma" if step.startswith("wgmma") else stage.backend
        if hung and kernel and kernel not in self.avoid:
            self.avoid.append(kernel)
        error = "hung, and was killed" if hung else "its process died"
        self.log.write(stage.name, step=step, ok=False, error=error, avoided=list(self.avoid))

    def _environment(self, stage: Stage) -> dict[str, str]:
        """The sources of this tree, the caches that were filled, and no network."""
        sources = [ROOT / f"packages/dvdq-{name}/src" for name in ("reference", "kernels", "models", "eval")]
        path = [*map(str, sources), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        added = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONUNBUFFERED": "1",
            "TRITON_CACHE_DIR": str(CACHE / "triton"),
            "DVDQ_KERNELS_CACHE": os.environ.get("DVDQ_KERNELS_CACHE") or str(CACHE / "cupy"),
            "BENCHMARK_RESULTS": str(self.folder / "results"),
            "BENCHMARK_COMMIT": os.environ.get("BENCHMARK_COMMIT") or _prepared_commit(),
            "HF_HUB_OFFLINE": "1",
        }
        if self.device == "cpu":
            added |= {"cupy": {"DVDQ_CUPY_EMULATE": "90"}, "triton": {"TRITON_INTERPRET": "1"}}.get(stage.backend, {})
        if "wgmma" in self.avoid:
            added["DVDQ_CUPY_WGMMA"] = "0"
        return {**os.environ, **{name: value for name, value in added.items() if value}, **stage.environment}

    def _program(self, name: str) -> str | None:
        return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")

    def _answers(self) -> bool:
        try:
            return subprocess.run([sys.executable, "-c", ANSWER], timeout=ANSWER_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def summarize(self, stages: Sequence[Sequence[Stage]]) -> None:
        """A screen: what each stage came to, what failed, and what to run another time; also ``summary.txt``."""
        lines, missing = [], []
        for stage in (stage for group in stages for stage in group):
            found = self.log.read(stage.name)
            steps = [line for line in found if "ok" in line]
            good = sum(line["ok"] for line in steps)
            out = [line["left_out"] for line in found if "left_out" in line]
            said = f"{good} of {len(steps)} right" if steps else "nothing: see output.txt" if found else "not begun"
            lines.append(f"{stage.name:20} {said}" + (f", {len(out)} left out: {out[-1]}" if out else ""))
            lines += [f"    {line['step']}: {line['error']}"[:200] for line in steps if not line["ok"]]
            missing += [stage.name] if out or not steps else []
        files = sorted((self.folder / "results").glob("*/*.csv"))
        lines += [f"{file.name:20} {len(file.read_text().splitlines()) - 1} rows" for file in files]
        lines += [f"avoided: {', '.join(self.avoid)}"] if self.avoid else []
        lines += [f"left out: --stages '{','.join(missing)}'"] if missing else []
        text = "\n".join(lines)
        (self.folder / "summary.txt").write_text(text + "\n")
        print(f"\n{text}\n\nAll of it: {self.folder}", flush=True)


def prepare(archive: Path, target: int) -> None:
    """Compiles every kernel for a compute capability and packs what a launch looks up, with the commit of the tree.

    Triton and NVRTC have to be those of the machine that it is for: others' files are not looked at there.
    """
    run = Run(CACHE / "log", "cpu")
    code = f"from benchmarks.quick.preparing import compile_all; import json; print(json.dumps(compile_all({target})))"
    environment = run._environment(STAGES[1][0])
    said = subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(said.stdout.splitlines()[-1])
    git = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    (CACHE / "commit").write_text(git.stdout.strip())
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as file:
        file.add(CACHE / "commit", "commit")
        for path in sorted(CACHE.rglob("*")):
            # Triton also keeps its intermediate forms, which no launch reads.
            if path.suffix in (".cubin", ".json"):
                file.add(path, str(path.relative_to(CACHE)))
    print(
        f"{archive}: {found['kernels']} kernels, {archive.stat().st_size / 2**20:.1f} MiB", *found["errors"], sep="\n"
    )


def unpack(archive: Path) -> None:
    """Puts what was compiled ahead where launches look it up."""
    with tarfile.open(archive) as file:
        file.extractall(CACHE, filter="data")


def _prepared_commit() -> str:
    path = CACHE / "commit"
    return path.read_text() if path.exists() and not (ROOT / ".git").exists() else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepares, or runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=520, help="seconds of all stages together; 520")
    parser.add_argument("--out", type=Path, default=ROOT / "out/gpu-quick", help="folder of what is found")
    parser.add_argument("--stages", help="only these, by commas")
    parser.add_argument("--avoid", default="", help="kernels to go around, by commas: wgmma, cupy, triton")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: emulated and interpreted")
    parser.add_argument("--prepared", type=Path, help="what --prepare made")
    parser.add_argument("--prepare", type=Path, help="compile everything into this archive, and end")
    parser.add_argument("--capability", type=int, default=90, help="that --prepare is for; 90")
    options = parser.parse_args(arguments)
    if options.prepare:
        prepare(options.prepare, options.capability)
        return
    if options.prepared:
        unpack(options.prepared)
    asked = options.stages.split(",") if options.stages else [stage.name for group in STAGES for stage in group]
    known = {stage.name for group in STAGES for stage in group}
    if unknown := set(asked) - known:
        parser.error(f"no stage is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    stages = [[stage for stage in group if stage.name in asked] for group in STAGES]
    run = Run(options.out, options.device, filter(None, options.avoid.split(",")))
    run.run(stages, options.budget)
    if run.failed:
        raise SystemExit(1)
