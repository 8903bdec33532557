"""The ``torch`` backend with one thing wrong: a function an operator, in the place of the right one."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from dvdq_kernels.backends.torch import clip_search, hadamard
from dvdq_kernels.backends.torch import operators as right
from dvdq_kernels.backends.torch.sorted_rows import SortedRows
from dvdq_kernels.rotation import paley
from dvdq_reference.spec.recipe import BGR_BOUNDS, BGR_TOLERANCE

Mutant = Callable[[], SimpleNamespace]
MUTANTS: dict[str, Mutant] = {}
OPERATORS = {name: getattr(right, name) for name in right.__all__}


def mutant(**operators: Callable[..., Any]) -> SimpleNamespace:
    """The right operators but for those given."""
    return SimpleNamespace(**{**OPERATORS, **operators})


def broken(build: Mutant) -> Mutant:
    """Registers a mutant under the name of the function that builds it."""
    MUTANTS[build.__name__] = build
    return build


def _swapped(packed: torch.Tensor) -> torch.Tensor:
    return (packed >> 4) | (packed << 4)


def _linear(change: Callable[[dict[str, Any]], None]) -> SimpleNamespace:
    """A mutant whose integer linear gets other arguments than it was given."""
    names = signature(right.integer_linear).parameters

    def integer_linear(*args: Any) -> torch.Tensor:
        given = dict(zip(names, args, strict=True))
        change(given)
        return right.integer_linear(**given)

    return mutant(integer_linear=integer_linear)


def _activation(change: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> SimpleNamespace:
    """A mutant whose activations leave otherwise than they were computed."""
    return mutant(rotate_quantize=lambda x, bits, *rest: change(bits, *right.rotate_quantize(x, bits, *rest)))


@broken
def nibbles_swapped_when_written() -> SimpleNamespace:
    def quantize_weight(weight: torch.Tensor, bits: int, *rest: Any) -> tuple[torch.Tensor, ...]:
        packed, scale, zero = right.quantize_weight(weight, bits, *rest)
        return _swapped(packed), scale, zero

    return mutant(quantize_weight=quantize_weight)


@broken
def nibbles_swapped_when_read() -> SimpleNamespace:
    return _linear(lambda given: given.update(qweight=_swapped(given["qweight"])))


@broken
def nibbles_of_activations_swapped_when_written() -> SimpleNamespace:
    def rotate_quantize(*args: Any) -> tuple[torch.Tensor, ...]:
        codes, scale, total = right.rotate_quantize(*args)
        return _swapped(codes) if codes.dtype == torch.uint8 else codes, scale, total

    return mutant(rotate_quantize=rotate_quantize)


@broken
def nibbles_of_activations_swapped_when_read() -> SimpleNamespace:
    def change(given: dict[str, Any]) -> None:
        if given["codes"].dtype == torch.uint8:
            given["codes"] = _swapped(given["codes"])

    return _linear(change)


@broken
def activation_scale_of_the_next_block() -> SimpleNamespace:
    return _linear(lambda given: given.update(x_scale=given["x_scale"].roll(1, -1)))


@broken
def weight_scale_of_the_next_group() -> SimpleNamespace:
    return _linear(lambda given: given.update(scale=given["scale"].roll(1, 1)))


@broken
def zero_point_dropped() -> SimpleNamespace:
    return _linear(lambda given: given.update(zero=None))


@broken
def zero_point_of_the_next_row() -> SimpleNamespace:
    def change(given: dict[str, Any]) -> None:
        if given["zero"] is not None:
            given["zero"] = given["zero"].roll(1, 0)

    return _linear(change)


@broken
def bias_forgotten() -> SimpleNamespace:
    return _linear(lambda given: given.update(bias=None))


@broken
def last_tile_unwritten() -> SimpleNamespace:
    def integer_linear(*args: Any) -> torch.Tensor:
        result = right.integer_linear(*args)
        written = result.shape[-1] // 16 * 16
        tiles = torch.empty_like(result)
        tiles[..., :written] = result[..., :written]
        return tiles

    return mutant(integer_linear=integer_linear)


@broken
def sums_rounded_to_bfloat16() -> SimpleNamespace:
    def integer_linear(codes: torch.Tensor, *args: Any) -> torch.Tensor:
        *rest, dtype = args
        return right.integer_linear(codes, *rest, torch.bfloat16).to(dtype)

    return mutant(integer_linear=integer_linear)


@broken
def input_changed() -> SimpleNamespace:
    def rotate_quantize(x: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        result = right.rotate_quantize(x, *rest)
        x.mul_(2)
        return result

    return mutant(rotate_quantize=rotate_quantize)


@broken
def activations_clamped_to_the_unsigned_range() -> SimpleNamespace:
    return _activation(lambda bits, codes, scale, total: (codes.clamp(min=0), scale, total))


@broken
def scales_that_lose_their_sign() -> SimpleNamespace:
    return _activation(lambda bits, codes, scale, total: (codes, scale.abs(), total))


@broken
def activations_clamped_to_a_symmetric_range() -> SimpleNamespace:
    return _activation(lambda bits, codes, scale, total: (codes.clamp(min=1 - 2 ** (bits - 1)), scale, total))


@broken
def token_sum_without_the_last_block() -> SimpleNamespace:
    def change(bits: int, codes: torch.Tensor, scale: torch.Tensor, total: torch.Tensor) -> Any:
        blocks = codes.float().view(*scale.shape, codes.shape[-1] // scale.shape[-1])
        return codes, scale, total - blocks[..., -1, :].sum(-1) * scale[..., -1]

    return _activation(change)


@broken
def gaussian_clip_ignored() -> SimpleNamespace:
    return mutant(
        rotate_quantize=lambda x, bits, block, clip, *rest: right.rotate_quantize(x, bits, block, "absmax", *rest)
    )


@broken
def signs_of_another_seed() -> SimpleNamespace:
    def other(seed: int | None) -> int | None:
        return None if seed is None else seed + 1

    return mutant(
        rotate=lambda x, kind, seed: right.rotate(x, kind, other(seed)),
        rotate_quantize=lambda x, bits, block, clip, kind, seed, packed: right.rotate_quantize(
            x, bits, block, clip, kind, other(seed), packed
        ),
    )


@broken
def regular_rotation_without_its_signs() -> SimpleNamespace:
    return mutant(rotate=lambda x, kind, seed: right.rotate(x, "block" if kind == "regular" else kind, seed))


@broken
def paley_core_transposed() -> SimpleNamespace:
    def rotate(x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor:
        uncached = patch.object(hadamard, "_factors", hadamard._factors.__wrapped__)
        with uncached, patch.object(hadamard, "paley", lambda m: paley(m).T):
            return right.rotate(x, kind, seed)

    return mutant(rotate=rotate)


@broken
def weights_rounded_down() -> SimpleNamespace:
    def quantize_weight(*args: Any) -> tuple[torch.Tensor, ...]:
        with patch.object(torch.Tensor, "round_", torch.Tensor.floor_):
            return right.quantize_weight(*args)

    return mutant(quantize_weight=quantize_weight)


@broken
def weight_ties_rounded_up() -> SimpleNamespace:
    def half_up(x: torch.Tensor) -> torch.Tensor:
        return x.add_(0.5).floor_()

    def quantize_weight(*args: Any) -> tuple[torch.Tensor, ...]:
        with patch.object(torch.Tensor, "round_", half_up):
            return right.quantize_weight(*args)

    return mutant(quantize_weight=quantize_weight)


@broken
def refinement_with_a_boundary_off_by_one() -> SimpleNamespace:
    search = SortedRows._search

    def off_by_one(self: SortedRows, row: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        return (search(self, row, edge) - 1).clamp_(min=0)

    def quantize_weight(*args: Any) -> tuple[torch.Tensor, ...]:
        with patch.object(SortedRows, "_search", off_by_one):
            return right.quantize_weight(*args)

    return mutant(quantize_weight=quantize_weight)


def _search(num_bounds: int | None = None, tolerance: float | None = None) -> SimpleNamespace:
    """A mutant whose BGR is bounded by these, whatever its rule says."""

    def quantize_weight(*args: Any) -> tuple[torch.Tensor, ...]:
        *rest, bounds, share = args
        bounds, share = bounds if num_bounds is None else num_bounds, share if tolerance is None else tolerance
        return right.quantize_weight(*rest, bounds, share)

    return mutant(quantize_weight=quantize_weight)


@broken
def refinement_without_its_bounds() -> SimpleNamespace:
    return _search(num_bounds=1)


@broken
def bounds_of_the_rule_ignored() -> SimpleNamespace:
    return _search(num_bounds=BGR_BOUNDS)


@broken
def tolerance_of_the_rule_ignored() -> SimpleNamespace:
    return _search(tolerance=BGR_TOLERANCE)


def _clip_search(**constants: float) -> SimpleNamespace:
    """A mutant whose clip search has other constants."""

    def quantize_weight(*args: Any) -> tuple[torch.Tensor, ...]:
        with patch.multiple(clip_search, **constants):
            return right.quantize_weight(*args)

    return mutant(quantize_weight=quantize_weight)


@broken
def clip_search_of_the_squared_error() -> SimpleNamespace:
    return _clip_search(_NORM=2.0)


@broken
def clip_search_that_ends_early() -> SimpleNamespace:
    return _clip_search(_STEPS=10)


def _without(searched: str) -> SimpleNamespace:
    """A mutant that takes the min-max grid where it is asked for another."""
    return mutant(
        quantize_weight=lambda weight, bits, grid, *rest: right.quantize_weight(
            weight, bits, "minmax" if grid == searched else grid, *rest
        )
    )


@broken
def scale_that_is_not_refined() -> SimpleNamespace:
    return _without("bgr-symmetric")


@broken
def clip_search_that_does_not_search() -> SimpleNamespace:
    return _without("clip-search")
