"""What is measured of the methods, one pass of a transformer, and how that is built: empty, random, from a checkpoint.

Each recipe's weights are there once, at every width that its activations ever have. Integer kernels take the same time
whatever the codes are, so a model of any size is measured without its checkpoint and without quantizing one: codes are
drawn where they are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dvdq_eval.machine import dtype_on
from dvdq_eval.methods import Method, weights_of
from dvdq_eval.passes.subject import Subject
from dvdq_models.apply import prepare_layers, quantize
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.families.family import Inputs
from dvdq_models.inspecting.memory import forward_peak
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.switching.hook import BitSwitch, hook_of
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.layout import is_packed
from dvdq_reference.spec.quantized import FINISH
from dvdq_reference.spec.recipe import BitSchedule, Recipe

FULL_WIDTH = 16
"""Bits of activations that are not quantized."""


@dataclass(frozen=True)
class Variant:
    """One set of weights and the widths that it runs at, e.g. that of W4A8, W4A6 and W4A4 at 8 and 4 bits.

    Attributes:
        label: of the method, for people.
        recipe: of the weights, whatever its schedule; None in full precision.
        widths: bits of activations, the most first.
        switches: whether a method of it changes between them.
    """

    label: str
    recipe: Recipe | None
    widths: tuple[int, ...]
    switches: bool = False

    def bits(self, *widths: int) -> str:
        """For people, e.g. ``W4A8``; a mix of widths is ``W4A6``, as the paper calls it; empty in full precision."""
        if self.recipe is None:
            return ""
        return f"W{self.recipe.weight.bits}A{widths[0] if len(widths) == 1 else 6}"


def variants_of(operation: str, methods: Sequence[Method]) -> tuple[Variant, ...]:
    """The variants that ``methods`` need, in their order.

    Raises:
        DvdqError: somebody else's layers, or TeaCache, which leaves passes out.
    """
    widths: dict[tuple[str, Recipe | None], set[int]] = {}
    switching: set[tuple[str, Recipe | None]] = set()
    for method in methods:
        if method.peer is not None or method.teacache is not None:
            raise DvdqError(operation, where=method.title, expected="full precision, or a recipe alone", got="more")
        recipe = method.recipe
        found = {FULL_WIDTH} if recipe is None else {recipe.schedule.high, recipe.schedule.low}
        key = (method.label, weights_of(recipe))
        widths.setdefault(key, set()).update(found)
        if len(found) > 1:
            switching.add(key)
    return tuple(Variant(*key, tuple(sorted(found, reverse=True)), key in switching) for key, found in widths.items())


Transformer = Any
"""A transformer of diffusers, which is untyped."""


@dataclass(frozen=True)
class Pass:
    """A variant's transformer on its inputs at one activation width."""

    variant: Variant
    width: int
    transformer: Any
    inputs: Inputs

    @property
    def title(self) -> str:
        """For people, e.g. ``DVD-Quant W4A8``."""
        return f"{self.variant.label} {self.variant.bits(self.width)}".strip()

    def prepare(self) -> None:
        """Set the width: the pass will be the first of a video all of whose steps run at it."""
        if self.variant.recipe is not None:
            hook_of(self.transformer).switch = BitSwitch(BitSchedule("constant", low=self.width, high=self.width))

    @torch.no_grad()  # not inference mode, in which Q, K and V could not share what was quantized
    def __call__(self) -> torch.Tensor:
        """The output."""
        output: torch.Tensor = self.transformer(**self.inputs, return_dict=False)[0]
        return output


def passes_of(subject: Subject, variant: Variant, device: torch.device) -> Iterator[Pass]:
    """A pass at each width of ``variant``, all of one transformer, which is built on ``device``."""
    transformer = build(subject, variant.recipe, device)
    inputs = subject.inputs(transformer, dtype_on(device), device)
    for width in variant.widths:
        yield Pass(variant, width, transformer, inputs)


def build(subject: Subject, recipe: Recipe | None, device: torch.device) -> Transformer:
    """The transformer of ``subject`` on ``device``, ready to run; quantized unless ``recipe`` is None."""
    dtype = dtype_on(device)
    if subject.weights is None:
        transformer = build_empty(subject, recipe, dtype)
        _draw(transformer, device)
        return transformer.to(device)
    empty: Transformer = empty_transformer(subject.config)
    loaded = type(empty).from_pretrained(str(subject.weights), torch_dtype=dtype)
    loaded = loaded.eval().requires_grad_(False).to(device)
    if recipe is None:
        return loaded
    recipe = _to_nearest(recipe)
    return quantize(loaded, recipe, channel_maxima=_maxima(loaded, recipe))


def build_empty(subject: Subject, recipe: Recipe | None, dtype: torch.dtype) -> Transformer:
    """The same with parameters on the meta device, each in the dtype that ``from_pretrained`` gives it."""
    transformer: Any = empty_transformer(subject.config, buffers=False).eval().requires_grad_(False)
    precise = set(transformer._keep_in_fp32_modules or ())
    for name, parameter in transformer.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if precise & set(name.split(".")) else dtype)
    if recipe is not None:
        for name, (_, layer) in prepare_layers(transformer, recipe, encoded=True).items():
            transformer.set_submodule(name, layer)
    return transformer


def _to_nearest(recipe: Recipe) -> Recipe:
    """``recipe`` without calibration of its codes, which decide nothing of a pass's time and memory."""
    weight, finish = dataclasses.replace(recipe.weight, rounding="nearest"), recipe.finish
    finish = None if finish is None else dataclasses.replace(finish, rounding="nearest")
    return dataclasses.replace(recipe, weight=weight, finish=finish)


def _maxima(transformer: nn.Module, recipe: Recipe) -> dict[str, torch.Tensor] | None:
    """Of a recipe that calibrates: factors have a size and take time, whatever calibration would make of them."""
    if not recipe.smooths_by_maxima:
        return None
    linears = {name: module for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    return {name: torch.ones(linear.in_features) for name, linear in linears.items()}


def _draw(transformer: nn.Module, device: torch.device) -> None:
    """Give every parameter random values of a size at which outputs stay finite: every product has unit gain."""
    generator = torch.Generator(device).manual_seed(0)
    for module in transformer.modules():
        codes = _codes(module, device, generator) if isinstance(module, QuantizedLinear) else {}
        for name, parameter in module.named_parameters(recurse=False):
            values = codes.get(name)
            if values is None:
                values = _values(name, parameter, device, generator)
            setattr(module, name, nn.Parameter(values, requires_grad=False))


def _values(name: str, like: torch.Tensor, device: torch.device, generator: torch.Generator) -> torch.Tensor:
    """Of norms and biases: 1 and 0; of products: normal."""
    values = torch.empty_like(like, device=device)
    if values.ndim < 2:
        return values.fill_(1.0 if name == "weight" else 0.0)
    return values.normal_(std=values[0].numel() ** -0.5, generator=generator)


def _codes(layer: QuantizedLinear, device: torch.device, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Uniform codes, whose standard deviation is that of ``2^b`` levels, around the middle zero-point."""
    filled = {}
    if layer.smoothing is not None:
        filled["smoothing"] = torch.ones_like(layer.smoothing, device=device)
    for prefix, weight in (("", layer.quantized), (FINISH, layer.finish)):
        if weight is None:
            continue
        bits, shape = weight.rule.bits, weight.qweight.shape
        count = 2 if is_packed(bits) else 1
        codes = torch.randint(2**bits, (count, *shape), dtype=torch.uint8, device=device, generator=generator)
        filled[f"{prefix}qweight"] = codes[0] | codes[1] << 4 if is_packed(bits) else codes[0]
        deviation = ((4**bits - 1) / 12) ** 0.5
        filled[f"{prefix}scale"] = torch.full_like(weight.scale, layer.in_features**-0.5 / deviation, device=device)
        if weight.zero is not None:
            filled[f"{prefix}zero"] = torch.full_like(weight.zero, code_offset(bits), device=device)
    return filled


WASTE = 1.1
"""What an allocator and kernels' own buffers are taken to need on top of what is counted."""


def weight_bytes(transformer: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(parameter.nbytes for parameter in transformer.parameters())


def pass_bytes(operation: str, subject: Subject, recipe: Recipe | None, dtype: torch.dtype) -> int:
    """Bytes that a pass needs beside weights and inputs, counted on the meta device.

    :mod:`dvdq_models.inspecting.memory` counts them.

    Raises:
        DvdqError: a transformer that does not run on the example inputs of its family.
    """
    transformer = build_empty(subject, recipe, dtype).to("meta")
    inputs = subject.inputs(transformer, dtype, torch.device("meta"))
    try:
        return forward_peak(transformer, inputs)
    except Exception as error:
        expected = f"a {type(transformer).__name__} that takes {', '.join(inputs)}"
        raise DvdqError(operation, where=subject.name, expected=expected, got=str(error)) from error


def fit_together(operation: str, subject: Subject, recipes: Iterable[Recipe | None], device: torch.device) -> bool:
    """Whether transformers of all ``recipes`` and a pass of any fit into what a GPU has free; on a CPU, taken to.

    Raises:
        DvdqError: as :func:`pass_bytes` does, so that what cannot run is refused before anything is allocated.
    """
    dtype = dtype_on(device)
    needs = [(weight_bytes(build_empty(subject, r, dtype)), pass_bytes(operation, subject, r, dtype)) for r in recipes]
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return WASTE * (sum(weights for weights, _ in needs) + max(beside for _, beside in needs)) < free
