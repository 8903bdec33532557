"""Stages that hang, crash, fail and end, for the test of what runs them."""

from __future__ import annotations

import os
import time

from benchmarks.quick.steps import Steps


def troubled(step: Steps) -> None:
    step("right", lambda: 3)
    step("wrong", lambda: 1 / 0)
    step("wgmma: hangs", time.sleep, 600)
    step("after the hang", lambda: sorted(step.avoid))
    step("crashes", os.abort)
    step("after the crash", lambda: os.environ.get("DVDQ_CUPY_WGMMA"))


def later(step: Steps) -> None:
    step("alone", lambda: os.environ.get("DVDQ_CUPY_WGMMA"))


def slow(step: Steps) -> None:
    for number in range(100):
        step(f"part {number}", time.sleep, 0.3)
    step("long", time.sleep, 0, least=1000)
