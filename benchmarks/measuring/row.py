"""The row that says what was timed on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.measuring.gpu import Ceilings, Timing, Work, describe
from benchmarks.measuring.records import commit, now, versions


@dataclass(frozen=True)
class Timed:
    """A timing, of what it was, and what else there is to say of it."""

    timing: Timing
    work: Work
    note: str = ""


@dataclass(frozen=True)
class Label:
    """Who did what: ``package`` is the distribution that a peer comes from."""

    operation: str
    provider: str
    variant: str
    shape: str
    package: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of a CSV file. ``ratio`` is the reference's median over this one's, both timed in the same process."""

    operation: str
    provider: str
    variant: str
    shape: str
    device: str
    capability: str
    p20_s: float
    p50_s: float
    p80_s: float
    reference: str
    ratio: float
    bytes: int
    operations: int
    tb_per_s: float
    tops: float
    floor_s: float
    floor_share: float
    peak_bytes: int
    note: str
    versions: str
    commit: str
    date: str


def make_row(
    label: Label, device: torch.device, found: Timed, reference: str, reference_s: float, ceilings: Ceilings
) -> Row:
    """What a CSV file says of a measurement; ``reference_s`` is the reference's median."""
    name, capability = describe(device)
    timing, work, floor = found.timing, found.work, ceilings.floor(found.work)
    return Row(
        operation=label.operation,
        provider=label.provider,
        variant=label.variant,
        shape=label.shape,
        device=name,
        capability=capability,
        p20_s=_digits(timing.p20),
        p50_s=_digits(timing.p50),
        p80_s=_digits(timing.p80),
        reference=reference,
        ratio=_digits(reference_s / timing.p50),
        bytes=work.bytes,
        operations=work.operations,
        tb_per_s=_digits(work.bytes / timing.p50 / 1e12),
        tops=_digits(work.operations / timing.p50 / 1e12),
        floor_s=_digits(floor),
        floor_share=_digits(floor / timing.p50),
        peak_bytes=timing.peak_bytes,
        note=found.note,
        versions=versions(
            "triton", "cupy-cuda13x", "nvidia-cuda-nvrtc", *([] if label.package is None else [label.package])
        ),
        commit=commit(),
        date=now(),
    )


def show(found: Row) -> None:
    """Prints a row on one line."""
    print(
        f"{found.shape:>20} {f'{found.provider} {found.variant}'.strip():46} {found.p50_s * 1e3:9.4f} ms "
        f"({found.p20_s * 1e3:.4f}-{found.p80_s * 1e3:.4f}) {found.ratio:7.3f} x {found.reference}, "
        f"{found.tb_per_s:.3f} TB/s, {found.tops:.0f} TOPS, {found.floor_share:.1%} of the floor {found.note}",
        flush=True,
    )


def _digits(number: float) -> float:
    """Five significant digits."""
    return float(f"{number:.5g}")
