"""What a recipe does to each layer of a model, counted without running or even allocating it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dvdq_kernels.call import Call, place_of
from dvdq_kernels.plan import Plan, plan_linear
from dvdq_kernels.selection import select
from dvdq_models.families import family_of
from dvdq_models.families.family import Treatment
from dvdq_models.layers.linear import SECOND, STORED, QuantizedLinear
from dvdq_models.lora import refuse_adapters
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.quantized import stored_tensors
from dvdq_reference.spec.recipe import Recipe

FULL_PRECISION_BYTES = 2
"""Bytes a parameter takes in full precision: models are shipped in bfloat16."""


@dataclass(frozen=True)
class LayerReport:
    """One linear: its name, shape ``(out, in)``, treatment, and bytes of its weight before and after.

    ``finish_bytes`` are those of its second set of codes, which ``bytes_after`` counts too.
    """

    name: str
    shape: tuple[int, int]
    treatment: Treatment
    bytes_before: int
    bytes_after: int
    finish_bytes: int = 0


@dataclass(frozen=True)
class ModelReport:
    """A whole transformer under a recipe; ``backend`` is what multiplies here, several if widths differ in theirs."""

    family: str
    recipe: Recipe
    parameters: int
    layers: tuple[LayerReport, ...]
    backend: str
    refused_backends: dict[str, str]

    @property
    def bytes_before(self) -> int:
        """Bytes of all parameters in 16 bits."""
        return self.parameters * FULL_PRECISION_BYTES

    @property
    def bytes_after(self) -> int:
        """Bytes of all parameters once quantized, scales and zero-points counted, the rest in 16 bits."""
        return self.bytes_before - sum(layer.bytes_before - layer.bytes_after for layer in self.layers)

    @property
    def bytes_with_finish_on_host(self) -> int:
        """Bytes on the device with second sets of codes in the computer's memory: all but these, and two of them."""
        second = sorted(layer.finish_bytes for layer in self.layers)
        return self.bytes_after - sum(second[:-2])

    @property
    def reduction(self) -> float:
        """How many times smaller the transformer becomes."""
        return self.bytes_before / self.bytes_after

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "family": self.family,
            "recipe": self.recipe.to_dict(),
            "parameters": self.parameters,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "bytes_with_finish_on_host": self.bytes_with_finish_on_host,
            "reduction": self.reduction,
            "backend": self.backend,
            "refused_backends": self.refused_backends,
            "layers": [vars(layer) for layer in self.layers],
        }


def describe(transformer: nn.Module, recipe: Recipe) -> ModelReport:
    """What ``recipe`` does, or did, to ``transformer`` without LoRA, on any device, the meta device included."""
    refuse_adapters("describe", transformer)
    family = family_of(transformer)
    layers: list[LayerReport] = []
    parameters = 0
    quantized = {name: m for name, m in transformer.named_modules() if isinstance(m, QuantizedLinear)}
    treatments: dict[str, Treatment]
    if quantized:
        treatments = {name: "weight-only" if m.activation is None else "quantize" for name, m in quantized.items()}
        parameters = sum(m.in_features * m.out_features for m in quantized.values())
    else:
        treatments = family.treatments(transformer)
    stored = {id(getattr(m, name)) for m in quantized.values() for name in STORED}
    parameters += sum(parameter.numel() for parameter in transformer.parameters() if id(parameter) not in stored)
    for name, treatment in treatments.items():
        module = transformer.get_submodule(name)
        assert isinstance(module, nn.Linear | QuantizedLinear)
        shape = (module.out_features, module.in_features)
        before = shape[0] * shape[1] * FULL_PRECISION_BYTES
        after, second = (before, 0) if treatment == "keep" else _stored_bytes(shape, recipe, treatment)
        layers.append(LayerReport(name, shape, treatment, before, after, second))
    backend, refused = _backend(recipe)
    return ModelReport(family.name, recipe, parameters, tuple(layers), backend, refused)


def _backend(recipe: Recipe) -> tuple[str, dict[str, str]]:
    """What multiplies here at each width of the schedule, and why nothing preferred does."""
    place = place_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    widths = [(bits, rule.bits) for rule in recipe.weights for bits in _widths(recipe)]
    found = [select(Call("quantized_linear", place, x_bits=x_bits, bits=bits)) for x_bits, bits in widths]
    names = dict.fromkeys(selection.backend.name for selection in found)
    refused = {name: reason for selection in found for name, reason in selection.refused.items()}
    return " and ".join(names), refused


def _widths(recipe: Recipe) -> tuple[int, ...]:
    """Of activations, the higher first."""
    return tuple(dict.fromkeys((recipe.schedule.high, recipe.schedule.low)))


def _stored_bytes(shape: tuple[int, int], recipe: Recipe, treatment: Treatment) -> tuple[int, int]:
    """Of all that a layer stores of its weight, and of the second set of codes among it."""
    smoothing = recipe.smoothing if treatment == "quantize" else None
    stored = stored_tensors(*shape, recipe.weight, smoothing, recipe.finish)
    second = sum(tensor.nbytes for tensor in stored if tensor.name in SECOND)
    return sum(tensor.nbytes for tensor in stored), second


def together(reports: Mapping[str, ModelReport]) -> ModelReport:
    """A pipeline's transformers as one: their layers under ``transformer.`` and ``transformer_2.``, their sizes added.

    Raises:
        DvdqError: transformers of different recipes.
    """
    (_, first), *others = reports.items()
    for name, report in others:
        if report.recipe != first.recipe:
            raise DvdqError("inspect", where=name, expected=f"the recipe {first.recipe}", got=report.recipe)
    layers = tuple(
        dataclasses.replace(layer, name=f"{name}.{layer.name}")
        for name, report in reports.items()
        for layer in report.layers
    )
    return dataclasses.replace(first, parameters=sum(r.parameters for r in reports.values()), layers=layers)


@dataclass(frozen=True)
class LayerPlan:
    """What runs for the linears of one shape and treatment at one activation width (None: full activations).

    ``finish`` is of the second set of codes, which runs after the first in the steps that finish.
    """

    shape: tuple[int, int]
    activation_bits: int | None
    tokens: int
    plan: Plan
    finish: bool = False


def plan_layers(report: ModelReport, tokens: int, capability: int | None = None) -> tuple[LayerPlan, ...]:
    """The kernels of each kind of quantized linear in ``report``, at each width of its schedule.

    Args:
        report: of :func:`describe`.
        tokens: of the video, e.g. 32,760; a linear whose activations stay full sees one, the time step.
        capability: as in :func:`dvdq_kernels.plan.plan_linear`.
    """
    recipe = report.recipe
    kinds = dict.fromkeys((layer.treatment, layer.shape) for layer in report.layers if layer.treatment != "keep")
    plans = []
    for treatment, shape in kinds:
        for bits in (None,) if treatment == "weight-only" else _widths(recipe):
            rule = None if bits is None else dataclasses.replace(recipe.activation, bits=bits)
            rows = 1 if bits is None else tokens
            for weight in recipe.weights if bits in (None, recipe.schedule.high) else (recipe.weight,):
                plan = plan_linear(rows, *shape, weight, rule, recipe.rotation, capability=capability)
                plans.append(LayerPlan(shape, bits, rows, plan, finish=weight is not recipe.weight))
    return tuple(plans)
