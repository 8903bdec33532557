"""Which methods stand in which table, and what each is held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dvdq_eval.methods import AS_PUBLISHED, BASELINES, FULL_PRECISION, LABELS, VARIANTS, Method
from dvdq_eval.peers.records import (
    COMFY_W4A4,
    COMFY_W4A4_OURS,
    COMFY_W4A8,
    COMFY_W4A8_OURS,
    ORBITQUANT_W4A4,
    ORBITQUANT_W4A6,
    SDNQ_UINT4,
)
from dvdq_reference.spec.recipe import DEFAULT_DELTA, ActivationRule, BitSchedule, Smoothing, WeightRule

OURS = LABELS["dvd-quant"]
WIDTHS = ("W4A8", "W4A6", "W4A4")
DELTAS = (0.06, 0.1, 0.14, 0.18)
"""Of Fig. 6: the paper's range."""
TEACACHE_THRESHOLD = 0.1
LAST_2 = BitSchedule("low", low=4, high=8, last_high=2)


@dataclass(frozen=True)
class Line:
    """One row of a table: a method, and the one that its videos are compared with, video by video."""

    method: Method
    against: Method | None = None


@dataclass(frozen=True)
class Experiment:
    """A table, e.g. ``EXPERIMENTS["table-1"]``.

    Attributes:
        title: what it shows.
        lines: its rows.
        claim: what the paper says of it, or what is asked beyond it.
    """

    title: str
    lines: tuple[Line, ...]
    claim: str

    @property
    def methods(self) -> tuple[Method, ...]:
        """All that it needs videos of, each once: full precision, which the others are measured by, first."""
        both = [method for line in self.lines for method in (line.method, line.against) if method is not None]
        return tuple(dict.fromkeys((FULL_PRECISION, *both)))


def ours(bits: str, label: str = OURS, **changes: Any) -> Method:
    """DVD-Quant with fields of its recipe replaced."""
    return Method.named(label, "dvd-quant", bits, **changes)


def plus(bits: str) -> Method:
    """The recipe that is made of what helps beyond the paper."""
    return Method.named(LABELS["dvd-quant-plus"], "dvd-quant-plus", bits)


def finish(bits: str) -> Method:
    """That whose last steps have two sets of codes."""
    return Method.named(LABELS["dvd-quant-finish"], "dvd-quant-finish", bits)


_PEERS = (
    Method("OrbitQuant", "W4A6", peer=ORBITQUANT_W4A6),
    Method("OrbitQuant", "W4A4", peer=ORBITQUANT_W4A4),
    Method("SDNQ", "uint4", peer=SDNQ_UINT4),
)


def _table_1() -> tuple[Line, ...]:
    lines = [Line(FULL_PRECISION)]
    for bits in WIDTHS:
        rivals = [Method.named(label, name, bits) for label, name in BASELINES.items()]
        if bits != "W4A6":
            rivals += [Method.named(label, name, bits, **c) for label, (name, c) in AS_PUBLISHED.items()]
        lines += [Line(rival, ours(bits)) for rival in rivals]
        lines += [Line(peer, plus(bits)) for peer in _PEERS if peer.bits == bits]
        lines += [Line(ours(bits)), Line(plus(bits), ours(bits))]
        if bits != "W4A6":
            lines.append(Line(plus(bits).with_feedback(), plus(bits)))
    lines.append(Line(finish("W4A4"), plus("W4A4")))
    lines += [Line(peer, plus("W4A8")) for peer in _PEERS if peer.bits not in WIDTHS]
    return tuple(lines)


def _scheduled(kind: str, label: str) -> Method:
    schedule = BitSchedule(kind, low=4, high=8)  # type: ignore[arg-type]  # one of ScheduleKind
    return ours("W4A6", label, schedule=schedule)


def _table_2() -> tuple[Line, ...]:
    switched = ours("W4A6", "δ-GBS")
    rivals = (("stp", "STP"), ("itp", "ITP"), ("abs", "ABS"), ("sba", "SBA"))
    ending = BitSchedule("delta", delta=DEFAULT_DELTA, last_high=2)
    ends = (ours("W4A6", "δ-GBS, last 2 at 8", schedule=ending), ours("W4A4", "last 2 at 8", schedule=LAST_2))
    rows = (*(_scheduled(kind, label) for kind, label in rivals), *ends)
    return (Line(switched), *(Line(row, switched) for row in rows))


def _table_3() -> tuple[Line, ...]:
    per_token = ActivationRule(8, None)
    parts: Mapping[str, Mapping[str, Any]] = {
        "neither": {"weight": WeightRule(4, "minmax"), "rotation": None, "activation": per_token},
        "ARQ alone": {"weight": WeightRule(4, "minmax")},
        "BGR alone": {"rotation": None, "activation": per_token},
    }
    lines = []
    for bits in ("W4A6", "W4A4"):
        both = ours(bits, "BGR and ARQ")
        lines += [Line(ours(bits, label, **changes), both) for label, changes in parts.items()]
        lines.append(Line(both))
    return tuple(lines)


def _table_4() -> tuple[Line, ...]:
    lines = []
    for plain in (FULL_PRECISION, *map(ours, WIDTHS)):
        lines += [Line(plain), Line(dataclasses.replace(plain, teacache=TEACACHE_THRESHOLD), plain)]
    return tuple(lines)


def _delta(delta: float) -> Method:
    return dataclasses.replace(ours("W4A6", f"δ = {delta:g}"), average=None).with_delta(delta)


def _figure_6() -> tuple[Line, ...]:
    return (Line(ours("W4A8")), *(Line(_delta(delta)) for delta in DELTAS), Line(ours("W4A4")))


AT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "W4A8": (
            "groups of 64",
            "groups of 128",
            "BGR with 1 bound",
            "BGR with 20 bounds",
            "BGR to tolerance 0",
            "rounded by its own videos",
        ),
        "W4A4": (
            "groups of 64",
            "groups of 128",
            "groups of 256",
            "Gaussian clip",
            "no random signs",
            "blocks of 256 rotated",
            "regular blocks of 256 rotated",
            "a scale per token",
            "a scale per 64",
            "signed scales",
            "signed scales per 64",
            "smoothed without data",
            "rounded by its own videos",
        ),
    }
)
"""Where a choice is looked at: how BGR searches shows where the weights' error is nearly all that is left."""


def _beyond() -> tuple[Line, ...]:
    lines = []
    for bits, labels in AT.items():
        base = ours(bits)
        lines += [Line(base), *(Line(ours(bits, label, **VARIANTS[label]), base) for label in labels)]
        lines.append(Line(plus(bits), base))
    guided = BitSchedule("delta", delta=DEFAULT_DELTA, measured="guided")
    switched = ours("W4A6")
    lines += [Line(switched), Line(ours("W4A6", "δ on the guided output", schedule=guided), switched)]
    lines += [Line(plus("W4A6"), switched)]
    return (*lines, Line(finish("W4A4"), plus("W4A4")))


def _finish() -> tuple[Line, ...]:
    signed = VARIANTS["signed scales per 64"]
    base = ours("W4A4", "signed scales per 64", **signed)

    def ending(label: str, *, last: int = 0, first: int = 0, **changes: Any) -> Method:
        schedule = BitSchedule("low", low=4, high=8, first_high=first, last_high=last)
        return ours("W4A4", label, **signed, schedule=schedule, **changes)

    last = {count: ending(f"last {count} at 8", last=count) for count in (1, 2, 3)}
    lines = [Line(ours("W4A4")), Line(base, ours("W4A4")), Line(ending("first 2 at 8", first=2), base)]
    lines += [Line(last[1], base), Line(last[2], last[1]), Line(last[3], last[2])]
    lines.append(Line(ending("last 2 at 8, smoothed", last=2, smoothing=Smoothing("analytic")), last[2]))
    lines += [Line(plus("W4A4"), last[2]), Line(plus("W4A8"), plus("W4A4"))]
    twice = Method.named("plus, weights twice", "dvd-quant-plus", "W4A4", finish=WeightRule(4, "bgr", 256))
    lines += [Line(twice, plus("W4A4")), Line(finish("W4A4"), plus("W4A4"))]
    lines += [Line(plain.with_feedback(), plain) for plain in (plus("W4A4"), plus("W4A8"), finish("W4A4"))]
    return tuple(lines)


def _comfyui() -> tuple[Line, ...]:
    lines = [Line(FULL_PRECISION)]
    own: dict[str, Method] = {}
    for bits, its_own, given in (("W4A4", COMFY_W4A4, COMFY_W4A4_OURS), ("W4A8", COMFY_W4A8, COMFY_W4A8_OURS)):
        own[bits] = Method("comfy-kitchen", bits, peer=its_own)
        lines += [Line(own[bits]), Line(Method("comfy-kitchen, our codes", bits, peer=given), own[bits])]
    lines += [Line(Method.named("convrot", "convrot", bits)) for bits in WIDTHS if bits in own]
    return (*lines, Line(Method.named("convrot", "convrot", "W4A4").with_feedback(), own["W4A4"]))


EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "table-1": Experiment(
            "Methods",
            _table_1(),
            "DVD-Quant at W4A6 comes near full precision and beats all at W4A8; at W4A4 the others fail.",
        ),
        "table-2": Experiment(
            "Bit schedules at one average", _table_2(), "δ-guided switching is better than any fixed pattern."
        ),
        "table-3": Experiment("BGR and ARQ", _table_3(), "Each helps, and both together most."),
        "table-4": Experiment("With TeaCache", _table_4(), "Skipping steps adds its speed and costs little."),
        "figure-6": Experiment("The threshold δ", _figure_6(), "A larger δ gives fewer bits and a worse picture."),
        "beyond": Experiment("Beyond the paper", _beyond(), "Each choice by itself, and the recipe made of them."),
        "finish": Experiment(
            "Steps and weights that finish",
            _finish(),
            "A few last steps at more bits give most of what more bits give.",
        ),
        "comfyui": Experiment(
            "In ComfyUI's formats",
            _comfyui(),
            "Codes of ours are better than comfy-kitchen's own, in the same bytes and by its operators.",
        ),
    }
)
