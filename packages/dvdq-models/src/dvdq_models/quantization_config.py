"""What ``config.json`` says under ``quantization_config``, as the object that diffusers passes around."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

import torch
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import nn

from dvdq_models.diffusers_plugin.registration import METHOD, register_config
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe, WeightRule

_OPERATION = "DVDQuantConfig"
_HIGHEST = 8
"""Bits of the steps that are to run high, where a recipe has but one width."""


class _Method(StrEnum):
    """A string to compare with, and an enum because diffusers reads its ``value``."""

    DVD_QUANT = METHOD


class DVDQuantConfig(QuantizationConfigMixin):  # type: ignore[misc]  # diffusers is untyped
    """How to quantize: ``from_pretrained(path, quantization_config=DVDQuantConfig("dvd-quant", "W4A6"))``.

    Args:
        recipe: the name of a recipe, or a :class:`~dvdq_models.Recipe`.
        bits: ``W{w}A{a}`` of a named recipe; W4A8 if not given.
        delta: threshold of the bit switch, for a recipe that switches.
        first_high: how many first steps run high, and
        last_high: how many last ones, as in :func:`with_ends`; None is as the recipe says, and so below.
        finish: the rule of the codes that layers add in the last ones.
        channel_maxima: for a recipe that smooths, as in :func:`dvdq_models.quantize`; not stored, only what was made of
            them is; likewise
        moments: for a recipe that rounds with feedback.
        backend: which kernels run, as in :func:`dvdq_kernels.quantized_linear`; it is not stored.

    Raises:
        DvdqError: an unknown recipe, bits beside a whole recipe, a δ without a switch, steps that cannot run higher, or
            any other argument: which layers are quantized is the family's rule table, so there is nothing like
            ``modules_to_not_convert``.
    """

    def __init__(
        self,
        recipe: Recipe | str = METHOD,
        bits: str | None = None,
        *,
        delta: float | None = None,
        first_high: int | None = None,
        last_high: int | None = None,
        finish: WeightRule | None = None,
        channel_maxima: Mapping[str, torch.Tensor] | None = None,
        moments: Mapping[str, torch.Tensor] | None = None,
        backend: str = "auto",
        **unsupported: Any,
    ) -> None:
        if unsupported:
            expected = "recipe, bits, delta, first_high, last_high, finish, channel_maxima, moments and backend"
            raise DvdqError(_OPERATION, expected=expected, got=", ".join(unsupported))
        if isinstance(recipe, str):
            recipe = Recipe.named(recipe, bits or "W4A8")
        elif bits is not None:
            raise DvdqError(_OPERATION, where="bits", expected="a recipe's name beside it", got=f"a recipe, and {bits}")
        self.quant_method = _Method.DVD_QUANT
        recipe = recipe if delta is None else with_delta(recipe, delta)
        self.recipe = with_ends(recipe, first_high=first_high, last_high=last_high, finish=finish)
        self.channel_maxima, self.moments = channel_maxima, moments
        self.backend = backend

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "quantization_config") -> Self:
        """What :meth:`to_dict` gave; another method, another format, or other fields are a :class:`DvdqError`."""
        if values.get("quant_method") != METHOD:
            expected, got = f"a checkpoint quantized by {METHOD}", values.get("quant_method")
            raise DvdqError("load", where=where, expected=expected, got=got)
        if values.get("format") not in (1, 2):
            raise DvdqError("load", where=where, expected="format 1 or 2", got=values.get("format"))
        if values.keys() != {"quant_method", "format", "recipe"}:
            expected = "quant_method, format and recipe"
            raise DvdqError("load", where=where, expected=expected, got=", ".join(sorted(values)))
        config = cls(Recipe.from_dict(values["recipe"]))
        if values["format"] != (needed := format_of(config.recipe)):
            raise DvdqError("load", where=where, expected=f"format {needed}, of its recipe", got=values["format"])
        return config

    def to_dict(self) -> dict[str, Any]:
        """What is stored, as JSON-ready values."""
        return {"quant_method": METHOD, "format": format_of(self.recipe), "recipe": self.recipe.to_dict()}

    def to_diff_dict(self) -> dict[str, Any]:
        """The same: nothing is left out for being the default."""
        return self.to_dict()


register_config(DVDQuantConfig)


def format_of(recipe: Recipe) -> int:
    """Version of what the tensors mean, of which a reader refuses a newer one: 2 with a second set of codes, else 1."""
    return 1 if recipe.finish is None else 2


def with_delta(recipe: Recipe, delta: float) -> Recipe:
    """``recipe`` with another threshold of its bit switch; one that does not switch is an error."""
    if recipe.schedule.kind != "delta":
        expected, got = "a schedule that switches (W4A6)", f"a {recipe.schedule.kind} one"
        raise DvdqError("recipe", where="delta", expected=expected, got=got)
    return dataclasses.replace(recipe, schedule=dataclasses.replace(recipe.schedule, delta=delta))


def with_ends(
    recipe: Recipe,
    *,
    first_high: int | None = None,
    last_high: int | None = None,
    finish: WeightRule | None = None,
) -> Recipe:
    """``recipe`` with other numbers of first and last steps that run high, or other codes added in the last.

    A constant schedule has no higher width: below 8 bits it becomes ``low``, with 8 above.

    Args:
        recipe: to start from.
        first_high: None leaves it as it is, here and below.
        last_high: how many last steps.
        finish: the rule of the second set of codes.

    Raises:
        DvdqError: a number that is negative or not whole, codes to add without last steps, or first and last steps of
            one width of 8 throughout, which have nothing to add either.
    """
    schedule, finish = recipe.schedule, recipe.finish if finish is None else finish
    if first_high is not None or last_high is not None:
        first = schedule.first_high if first_high is None else first_high
        last = schedule.last_high if last_high is None else last_high
        schedule = dataclasses.replace(schedule, first_high=first, last_high=last)
        if schedule.kind == "constant" and schedule.high < _HIGHEST and (first or last):
            schedule = dataclasses.replace(schedule, kind="low", low=schedule.high, high=_HIGHEST)
        if schedule.kind == "constant" and finish is None and (first or last):
            expected, got = f"a schedule with steps below {_HIGHEST} bits", f"{schedule.high} bits throughout"
            raise DvdqError("recipe", where="first_high, last_high", expected=expected, got=got)
    return dataclasses.replace(recipe, schedule=schedule, finish=finish)


def mark_quantized(transformer: nn.Module, config: DVDQuantConfig) -> None:
    """Let diffusers know: it then saves the recipe with the model, and refuses to cast it."""
    model: Any = transformer
    model.register_to_config(quantization_config=config)
    model.is_quantized, model.quantization_method = True, config.quant_method
