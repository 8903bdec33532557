"""A suite: providers of one operation over many shapes, its command line, and a process for each group of providers.

A group has a process of its own, in which the reference is timed beside it: what one peer imports, patches, caches or
breaks does not touch another, and a ratio is of two times that lie seconds apart.
"""

from __future__ import annotations

import argparse
import gc
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.measuring import gpu, records, workloads
from benchmarks.measuring.case import Case, Provider
from benchmarks.measuring.row import Label, Timed, make_row, show
from dvdq_kernels import backends

OWN = "dvdq-kernels"
GPU_BACKENDS = ("cupy", "triton")


@dataclass(frozen=True)
class Suite:
    """Who does ``operation``: a reference, what is timed ``beside`` ours, ours of a backend, and peers, a group each.

    ``cases`` are the inputs that the repeats of a call take turns over.
    """

    name: str
    operation: str
    shapes: tuple[workloads.Shape, ...]
    quick: tuple[workloads.Shape, ...]
    reference: Provider
    ours: Callable[[str], tuple[Provider, ...]]
    beside: tuple[Provider, ...] = ()
    peers: tuple[Provider, ...] = ()
    cases: Callable[[workloads.Shape, torch.device], list[Case]] = lambda shape, device: [Case(shape, device)]

    def own(self, *backends: str) -> tuple[Provider, ...]:
        """One group: what of several backends is compared was timed in one process."""
        return (*self.beside, *(provider for backend in backends for provider in self.ours(backend)))

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Runs what the command line asks for: one group here, or each in its process."""
        given = sys.argv[1:] if arguments is None else list(arguments)
        options = self._parser().parse_args(given)
        device = gpu.require_gpu()
        if options.only is None and self.peers:
            self._in_processes(given)
            return
        shapes = options.shapes or (self.quick if options.quick else self.shapes)
        if options.only in (None, OWN):
            self._run(self.own(*options.backend.split(",")), shapes, device, own=True, seconds=math.inf)
        else:
            peers = [peer for peer in self.peers if peer.name == options.only]
            self._run(peers, shapes, device, own=False, seconds=options.seconds)

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser()
        parser.add_argument("--quick", action="store_true", help=f"only {', '.join(map(workloads.name, self.quick))}")
        parser.add_argument("--shapes", type=workloads.parse, help=f"{workloads.name(self.shapes[0])}, …")
        able = ",".join(name for name in GPU_BACKENDS if backends()[name] is None)
        parser.add_argument(
            "--backend", default=able, help=f"of dvdq-kernels, by commas; here {able or 'none can run'}"
        )
        parser.add_argument("--only", choices=self._groups(), help="one group of providers, in this process")
        parser.add_argument("--seconds", type=float, default=60.0, help="after which a peer begins no other shape; 60")
        return parser

    def _groups(self) -> list[str]:
        return [OWN, *(peer.name for peer in self.peers)]

    def _in_processes(self, options: list[str]) -> None:
        for name in self._groups():
            print(f"-- {self.operation}: {name}", flush=True)
            command = [sys.executable, "-m", "benchmarks", self.name, "--only", name, *options]
            failed = subprocess.run(command, cwd=records.ROOT, check=False).returncode
            if failed and name == OWN:
                raise SystemExit(f"{self.operation}: {name} failed")
            if failed:
                print(f"{name}: its process failed, and its rows end there", flush=True)

    def _run(
        self,
        providers: Sequence[Provider],
        shapes: Sequence[workloads.Shape],
        device: torch.device,
        *,
        own: bool,
        seconds: float,
    ) -> None:
        """Times the reference and the providers at every shape; the reference's own row is written beside ours.

        Who fails gets no row, and the others get theirs; at the end it is an error if one of ours did.
        """
        torch.set_grad_enabled(False)
        ceilings = gpu.ceilings(device)
        start, failed = time.monotonic(), []
        for shape in shapes:
            if time.monotonic() - start > seconds:
                print(f"{workloads.name(shape)}: left out, {seconds:.0f} s are over", flush=True)
                continue
            # Peers' layers refer to themselves, and hold gigabytes.
            gc.collect()
            torch.cuda.empty_cache()
            cases = self.cases(shape, device)
            reference = self._measure(self.reference, cases)
            if own:
                self._record(self.reference, shape, device, reference, reference, ceilings)
            for provider in providers:
                try:
                    found = self._measure(provider, cases)
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    what = f"{workloads.name(shape)}: {provider.name} {provider.variant}".strip()
                    print(f"{what} not measured: {reason}", flush=True)
                    failed += [f"{what}: {reason}"] if provider.package is None else []
                    continue
                self._record(provider, shape, device, found, reference, ceilings)
        if failed:
            raise SystemExit("\n".join([f"{self.operation}: {len(failed)} of ours failed", *failed]))

    def _measure(self, provider: Provider, cases: Sequence[Case]) -> Timed:
        jobs = [provider.build(case) for case in cases]
        jobs[0].check(jobs[0].call())
        found = Timed(gpu.measure([job.call for job in jobs]), jobs[0].work, jobs[0].note)
        return found

    def _record(
        self,
        provider: Provider,
        shape: workloads.Shape,
        device: torch.device,
        found: Timed,
        reference: Timed,
        ceilings: gpu.Ceilings,
    ) -> None:
        label = Label(self.operation, provider.name, provider.variant, workloads.name(shape), provider.package)
        row = make_row(label, device, found, self.reference.name, reference.timing.p50, ceilings)
        records.append(self.name, row.device, [row])
        show(row)
