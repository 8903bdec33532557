"""Rounding with error feedback, with one line broken: the comparison with the oracle refuses each."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from conformance.test_feedback import RULES, check

from dvdq_kernels import feedback

SOURCE = Path(feedback.__file__).read_text()
BREAKS = {
    "errors of the block before forgotten": ("left[:start])", "0 * left[:start])"),
    "errors within a block forgotten": ("left[start:j].T", "0 * left[start:j].T"),
    "the transposed matrix": ("feedback[start:j, j]", "feedback[j, start:j]"),
    "what was aimed at, not the weight, is compared": ("columns[j] - value", "wanted - value"),
    "the grid of the group before": ("steps[channel // group], offsets", "steps[channel // group - 1], offsets"),
    "codes below the least": ("clamp_(least,", "clamp_(0,"),
    "not damped": ("FEEDBACK_DAMPING * mean", "1e-6 * mean"),
    "rotated on one side": ("range(2)", "range(1)"),
    "channels from the last": ("h.flip(0, 1))", "h)"),
}


@pytest.mark.parametrize(("right", "wrong"), BREAKS.values(), ids=BREAKS)
def test_mutant_fails(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SOURCE.count(right) == 1
    broken = ModuleType("broken")
    exec(compile(SOURCE.replace(right, wrong), "broken", "exec"), broken.__dict__)
    monkeypatch.setattr(feedback, "error_feedback", broken.error_feedback)
    monkeypatch.setattr("dvdq_kernels.functions.encode_with_feedback", broken.encode_with_feedback)
    with pytest.raises((AssertionError, ValueError)):
        _check_all()


def _check_all() -> None:
    for rule, rotation in RULES:
        check(rule, rotation)
