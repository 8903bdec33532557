"""The steps of a stage: each is on disk when it begins and when it ends, and one that fails does not end the stage."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.quick.log import Log


class LostContextError(RuntimeError):
    """The process can do nothing more on the GPU."""


@dataclass
class Steps:
    """Steps by name. Those that an earlier process of the stage began, and died of or ended, are not begun again.

    Attributes:
        log: where they are written down.
        stage: whose they are.
        backend: whose kernels it is about, if one's.
        device: ``cuda``, or ``cpu`` where kernels are emulated and interpreted.
        end: after which no step begins, by ``time.monotonic``, which is one clock for all processes.
        avoid: kernels that hung before.
    """

    log: Log
    stage: str
    backend: str
    device: str
    end: float
    avoid: frozenset[str] = frozenset()
    begun: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.begun = set(self.log.begun(self.stage))

    def __call__(self, name: str, call: Callable[..., Any], *arguments: Any, least: float = 0) -> None:
        """Runs ``call(*arguments)`` if ``least`` seconds are left, and keeps what it gives, or why it failed."""
        if name in self.begun:
            return
        if time.monotonic() + least > self.end:
            self.log.write(self.stage, step=name, left_out="no time left")
            return
        self.begun.add(name)
        self.log.write(self.stage, begins=name)
        start = time.monotonic()
        found: dict[str, Any]
        try:
            found = {"ok": True, "found": call(*arguments)}
            self._settle()
        # A failed check ends a benchmark by SystemExit, and is a finding like any other.
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            traceback.print_exc()
            found = {
                "ok": False,
                "error": f"{type(error).__name__}: {error}"[:1500],
                "where": f"{last.filename}:{last.lineno}",
            }
        self.log.write(self.stage, step=name, seconds=round(time.monotonic() - start, 2), **found)
        if not found["ok"]:
            self._check_context(name)

    def _settle(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def _check_context(self, name: str) -> None:
        """After an illegal access nothing runs in this process: it ends, and the stage goes on in another."""
        try:
            self._settle()
        except Exception as error:
            raise LostContextError(f"the context is lost after {name}: {error}") from error
