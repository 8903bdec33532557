"""A recipe: rotation + smoothing + weight rule + activation rule + bit schedule, as data.

Every method of the paper is a recipe, and every recipe runs through the same layers and kernels. A recipe is frozen,
compares by value and round-trips through JSON, so that a checkpoint carries the recipe that made it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from dvdq_reference.spec.bits import check_bits
from dvdq_reference.spec.errors import DvdqError

RotationKind = Literal["full", "block", "regular"]
Grid = Literal["minmax", "bgr", "bgr-symmetric", "clip-search"]
Rounding = Literal["nearest", "feedback"]
Clip = Literal["absmax", "gaussian", "quarot", "signed"]
SmoothingKind = Literal["smoothquant", "vidit-q", "analytic"]
ScheduleKind = Literal["constant", "low", "delta", "stp", "itp", "abs", "sba"]
Measured = Literal["conditional", "guided"]

ROTATION_BLOCK = 256
"""Size of the Hadamard matrix of a ``block`` or ``regular`` rotation."""
DEFAULT_BLOCK = 128
"""Channels that share an activation scale under ARQ, unless a recipe says otherwise."""
BGR_BOUNDS = 6
"""Shrink steps of BGR, min-max included."""
BGR_TOLERANCE = 1e-3
"""BGR refines a grid while its squared error falls by more than this share."""
BGR_MAX_ROUNDS = 50
"""Refinements of one grid at most."""
FEEDBACK_DAMPING = 0.01
"""What is added to the second moments of activations before errors are fed back, as a share of their mean."""


def _check_choice(name: str, value: object, literal: Any) -> None:
    if value not in get_args(literal):
        raise DvdqError("recipe", where=name, expected=" or ".join(get_args(literal)), got=repr(value))


def _check_size(name: str, size: object) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise DvdqError("recipe", where=name, expected="a positive whole number or None", got=repr(size))


def _check_count(name: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise DvdqError("recipe", where=name, expected="a whole number >= 0", got=repr(count))


@dataclass(frozen=True)
class Rotation:
    """An orthonormal Hadamard matrix of the input channels: ``Y = (X H)(W H)^T``.

    ``full`` is one matrix of size ``in``; ``block`` is ``I ⊗ H_256``. With a ``seed``, H is preceded by random signs:
    ``R = diag(±1) H``. ``regular`` is ``block`` preceded by the one pattern of signs that makes every column of each
    H_256 sum to ±16, so that a mean which the channels share is not gathered in one of them; it takes no seed.
    """

    kind: RotationKind = "full"
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_choice("rotation.kind", self.kind, RotationKind)
        if self.kind == "regular" and self.seed is not None:
            raise DvdqError("recipe", where="rotation.seed", expected="none beside a regular rotation", got=self.seed)


@dataclass(frozen=True)
class Smoothing:
    """A factor per input channel that moves difficulty from activations to weights (Eq. 9).

    ``smoothquant`` and ``vidit-q`` take the activations' magnitudes from calibration; ``analytic`` has SmoothQuant's
    formula of magnitudes that follow from the model's weights, so it needs no data. ``twice`` also quantizes the
    smoothed weight before it is rotated, as the code of ViDiT-Q's authors does.
    """

    kind: SmoothingKind = "smoothquant"
    alpha: float = 0.5
    twice: bool = False

    def __post_init__(self) -> None:
        _check_choice("smoothing.kind", self.kind, SmoothingKind)
        if not 0.0 <= self.alpha <= 1.0:
            raise DvdqError("recipe", where="smoothing.alpha", expected="0 to 1", got=self.alpha)
        if self.twice and self.kind != "vidit-q":
            raise DvdqError("recipe", where="smoothing.twice", expected="vidit-q beside it", got=self.kind)

    @property
    def calibrated(self) -> bool:
        """Whether the activations' magnitudes are measured, not computed."""
        return self.kind != "analytic"


def least_code(grid: str) -> int:
    """The smallest code q: 1 where a grid has as many on either side of zero, e.g. -7 … 7 at 4 bits, else 0."""
    return int(grid == "bgr-symmetric")


@dataclass(frozen=True)
class WeightRule:
    """The grid of a weight's codes: ``WeightRule(4, "bgr", 128)`` gives a ``[12, 256]`` weight 2 grids a row.

    ``group_size=None`` is one grid per row. A symmetric grid fixes the zero-point at ``2^(b-1)``. ``bgr-symmetric`` is
    BGR of the scale alone, with as many codes on either side of zero. ``clip-search`` is QuaRot's: the symmetric grid
    of least ``Σ |W - Ŵ|^2.4`` among min-max shrunk by 0, 1, … 79 %. ``num_bounds`` and
    ``tolerance`` are BGR's: how many shrink steps it tries, and by which share the squared error must fall for a grid
    to be refined again. With ``rounding="feedback"`` the codes on that grid are not the nearest: each channel makes up
    for what those before it got wrong, as the second moments of the activations say, which calibration measures.
    """

    bits: int = 4
    grid: Grid = "bgr"
    group_size: int | None = None
    symmetric: bool = False
    num_bounds: int = BGR_BOUNDS
    tolerance: float = BGR_TOLERANCE
    rounding: Rounding = "nearest"

    @property
    def least_code(self) -> int:
        """As :func:`least_code` of its grid."""
        return least_code(self.grid)

    def __post_init__(self) -> None:
        check_bits("recipe", self.bits)
        _check_choice("weight.grid", self.grid, Grid)
        _check_size("weight.group_size", self.group_size)
        _check_choice("weight.rounding", self.rounding, Rounding)
        if self.symmetric and self.grid == "bgr":
            raise DvdqError("recipe", where="weight", expected="an asymmetric grid for BGR", got="symmetric=True")
        if not self.symmetric and self.grid in ("bgr-symmetric", "clip-search"):
            expected = f"symmetric=True for {self.grid}"
            raise DvdqError("recipe", where="weight", expected=expected, got="symmetric=False")
        if isinstance(self.num_bounds, bool) or not isinstance(self.num_bounds, int) or self.num_bounds < 1:
            raise DvdqError(
                "recipe", where="weight.num_bounds", expected="a positive whole number", got=self.num_bounds
            )
        if not 0.0 <= self.tolerance < 1.0:
            raise DvdqError("recipe", where="weight.tolerance", expected="0 to 1", got=self.tolerance)


@dataclass(frozen=True)
class ActivationRule:
    """The codes of activations: ``ActivationRule(4, 128)`` gives ``[7, 256]`` activations 2 scales a token.

    ``block=None`` is one scale per token. ``clip="absmax"`` is the paper's scale; ``"gaussian"`` shrinks it by the
    factor that is best for a Gaussian block of that length, ``"quarot"`` to 0.9 of it, as QuaRot's experiments do.
    ``"signed"`` has a scale of either sign, which puts the value of largest magnitude at the end with one code more.
    """

    bits: int = 8
    block: int | None = None
    clip: Clip = "absmax"

    def __post_init__(self) -> None:
        check_bits("recipe", self.bits)
        _check_size("activation.block", self.block)
        _check_choice("activation.clip", self.clip, Clip)


@dataclass(frozen=True)
class BitSchedule:
    """Which activation width each denoising step uses.

    ``constant`` uses ``high`` always, ``low`` the other one; ``delta`` is the paper's switch (Eq. 11) with threshold
    ``delta``; ``stp``, ``itp``, ``abs`` and ``sba`` are its rivals (Sec. 4.3), ``sba`` drawn with ``seed``.
    ``measured`` is the output F whose change is summed: that of the conditional pass, or what classifier-free guidance
    makes of both passes. Whatever the kind says, the ``first_high`` first steps and the ``last_high`` last ones use
    ``high``: ``BitSchedule("low", last_high=2)`` runs all steps but two at 4 bits.
    """

    kind: ScheduleKind = "constant"
    low: int = 4
    high: int = 8
    delta: float | None = None
    seed: int = 0
    measured: Measured = "conditional"
    first_high: int = 0
    last_high: int = 0

    def __post_init__(self) -> None:
        _check_choice("schedule.kind", self.kind, ScheduleKind)
        _check_choice("schedule.measured", self.measured, Measured)
        check_bits("recipe", self.low)
        check_bits("recipe", self.high)
        if self.low > self.high:
            raise DvdqError("recipe", where="schedule", expected="low <= high", got=f"{self.low} > {self.high}")
        if self.kind == "delta" and (self.delta is None or not self.delta >= 0.0):
            raise DvdqError("recipe", where="schedule.delta", expected="a number >= 0", got=self.delta)
        _check_count("schedule.first_high", self.first_high)
        _check_count("schedule.last_high", self.last_high)


@dataclass(frozen=True)
class Recipe:
    """Everything that says how a model is quantized; ``activation.bits`` is overridden by the schedule at each step.

    With ``finish`` a layer has a second set of codes, by that rule, of what the first left of ``W R``. It adds their
    product in the last ``schedule.last_high`` steps, of which there must be some.
    """

    name: str
    weight: WeightRule
    activation: ActivationRule
    schedule: BitSchedule
    rotation: Rotation | None = None
    smoothing: Smoothing | None = None
    finish: WeightRule | None = None

    def __post_init__(self) -> None:
        if self.finish is not None and self.schedule.last_high == 0:
            raise DvdqError("recipe", where="schedule.last_high", expected="last steps, for finish", got=0)

    @property
    def weights(self) -> tuple[WeightRule, ...]:
        """The rules of a layer's sets of codes, one or two."""
        return (self.weight,) if self.finish is None else (self.weight, self.finish)

    @property
    def smooths_by_maxima(self) -> bool:
        """Whether it smooths by the activations' magnitudes, which have to be measured."""
        return self.smoothing is not None and self.smoothing.calibrated

    @property
    def feeds_back(self) -> bool:
        """Whether codes are rounded by the second moments of activations, which have to be measured."""
        return any(rule.rounding == "feedback" for rule in self.weights)

    def with_feedback(self) -> Self:
        """The same with all its codes rounded with error feedback."""
        first, *second = (dataclasses.replace(rule, rounding="feedback") for rule in self.weights)
        return dataclasses.replace(self, weight=first, finish=second[0] if second else None)

    @classmethod
    def named(cls, name: str, bits: str = "W4A8", **changes: Any) -> Self:
        """A recipe of DESIGN's table, e.g. ``Recipe.named("dvd-quant", "W4A6")``.

        Args:
            name: ``minmax``, ``smoothquant``, ``quarot``, ``vidit-q``, ``dvd-quant``, ``convrot``, whose weights the
                files for ComfyUI hold, ``dvd-quant-plus``, which is ``dvd-quant`` with a grid for each 256 channels,
                signed scales of 64 and two last steps at 8 bits, or ``dvd-quant-finish``, which is that with a grid for
                each 64 channels and a second set of codes for those two steps.
            bits: ``W{w}A{a}``. ``A6`` is an average, not a width: a δ-guided switch between 4 and 8. Where the two last
                steps run at 8 bits, ``A4`` is the width of all others.
            changes: fields to replace, e.g. ``rotation=None`` for an ablation.
        """
        if name not in _TABLE:
            raise DvdqError("recipe", expected=f"one of {', '.join(_TABLE)}", got=repr(name))
        match = re.fullmatch(r"W(\d)A(\d)", bits)
        if match is None:
            raise DvdqError("recipe", where="bits", expected="W{weight}A{activation}, e.g. W4A8", got=repr(bits))
        weight_bits, activation_bits = int(match[1]), int(match[2])
        choices = _TABLE[name]
        schedule = choices.schedule(activation_bits)
        recipe = cls(
            name=name,
            weight=dataclasses.replace(choices.weight, bits=weight_bits),
            activation=dataclasses.replace(choices.activation, bits=schedule.high),
            schedule=schedule,
            rotation=choices.rotation,
            smoothing=choices.smoothing,
            finish=None if choices.finish is None else dataclasses.replace(choices.finish, bits=weight_bits),
        )
        return dataclasses.replace(recipe, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON-ready values.

        Fields younger than the format stand there only where they say something, so that every other recipe is written,
        and read by older versions, as it always was.
        """
        values = dataclasses.asdict(self)
        for name in ("first_high", "last_high"):
            if not values["schedule"][name]:
                del values["schedule"][name]
        if self.finish is None:
            del values["finish"]
        for name in values.keys() & {"weight", "finish"}:
            if values[name]["rounding"] == "nearest":
                del values[name]["rounding"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The recipe that :meth:`to_dict` wrote; unknown or missing fields are a :class:`DvdqError`."""
        parts: dict[str, Any] = {
            "weight": WeightRule,
            "activation": ActivationRule,
            "schedule": BitSchedule,
            "rotation": Rotation,
            "smoothing": Smoothing,
            "finish": WeightRule,
        }
        try:
            built = {k: parts[k](**v) if k in parts and v is not None else v for k, v in values.items()}
            return cls(**built)
        except (AttributeError, TypeError) as error:
            raise DvdqError("recipe", expected="the fields of a recipe", got=str(error)) from error


DEFAULT_DELTA = 0.12
"""δ of a W4A6 recipe until one is chosen from a recorded trace: the middle of the paper's sweep (Fig. 6)."""

_PER_TOKEN = ActivationRule(8, None)


@dataclass(frozen=True)
class _Choices:
    """What a name stands for; its widths come with it. With ``last_high`` so many last steps run at 8 bits."""

    weight: WeightRule
    activation: ActivationRule = _PER_TOKEN
    rotation: Rotation | None = None
    smoothing: Smoothing | None = None
    last_high: int = 0
    finish: WeightRule | None = None

    def schedule(self, activation_bits: int) -> BitSchedule:
        """The one that ``A{activation_bits}`` asks for."""
        if activation_bits == 6:
            return BitSchedule("delta", low=4, high=8, delta=DEFAULT_DELTA, last_high=self.last_high)
        if self.last_high and activation_bits < 8:
            return BitSchedule("low", low=activation_bits, high=8, last_high=self.last_high)
        # Where all steps are alike, the last ones differ by their weights alone.
        last_high = 0 if self.finish is None else self.last_high
        return BitSchedule("constant", low=activation_bits, high=activation_bits, last_high=last_high)


_SIGNS = Rotation("full", seed=0)
_SYMMETRIC = WeightRule(4, "minmax", symmetric=True)
_GROUPS_OF_64 = WeightRule(4, "bgr", 64)
_PLUS = _Choices(WeightRule(4, "bgr", 256), ActivationRule(8, 64, "signed"), _SIGNS, last_high=2)
_TABLE: dict[str, _Choices] = {
    "minmax": _Choices(WeightRule(4, "minmax")),
    "smoothquant": _Choices(WeightRule(4, "minmax"), smoothing=Smoothing("smoothquant", 0.5)),
    "quarot": _Choices(_SYMMETRIC, rotation=_SIGNS),
    "vidit-q": _Choices(_SYMMETRIC, rotation=_SIGNS, smoothing=Smoothing("vidit-q", 0.5)),
    "dvd-quant": _Choices(WeightRule(4, "bgr"), ActivationRule(8, DEFAULT_BLOCK), _SIGNS),
    "convrot": _Choices(WeightRule(4, "bgr-symmetric", symmetric=True), rotation=Rotation("regular")),
    "dvd-quant-plus": _PLUS,
    "dvd-quant-finish": dataclasses.replace(_PLUS, weight=_GROUPS_OF_64, finish=_GROUPS_OF_64),
}
NAMES = tuple(_TABLE)
"""Of all recipes that have one."""
