"""``dvdq inspect PATH``: what a recipe does, or did, to each layer, from a config alone."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dvdq_models.cli.console import console, megabytes, print_json
from dvdq_models.cli.options import AsJson, Bits, Delta, RecipeName
from dvdq_models.cli.recipe import recipe_from
from dvdq_models.inspection import LayerPlan, ModelReport, describe, empty_transformer, plan_layers
from dvdq_reference.spec.recipe import Recipe


def inspect(
    path: Annotated[Path, typer.Argument(help="A pipeline folder, a transformer folder or a config.json.")],
    recipe: RecipeName = "dvd-quant",
    bits: Bits = "W4A6",
    delta: Delta = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    kernels: Annotated[bool, typer.Option("--kernels", help="Tell which kernels run for each kind of layer.")] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of the video, for --kernels.")] = 32760,
    capability: Annotated[
        int | None, typer.Option(help="Compute capability, e.g. 90, of a GPU that need not be here, for --kernels.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show sizes before and after; a quantized checkpoint tells its own recipe."""
    report = describe(empty_transformer(path), _stored_recipe(path) or recipe_from(recipe, bits, delta))
    plans = plan_layers(report, tokens, capability) if kernels else ()
    if as_json:
        print_json(report.to_dict() | ({"kernels": [dataclasses.asdict(plan) for plan in plans]} if kernels else {}))
        return
    console.print(_summary(report))
    if layers:
        console.print(_layers(report))
    if kernels:
        console.print(_kernels(plans))


def _stored_recipe(path: Path) -> Recipe | None:
    for config in (path, path / "transformer" / "config.json", path / "config.json"):
        if config.is_file():
            stored: dict[str, Any] = json.loads(config.read_text()).get("quantization_config") or {}
            return Recipe.from_dict(stored["recipe"]) if "recipe" in stored else None
    return None


def _summary(report: ModelReport) -> Table:
    table = Table(title=f"{report.family}, {report.parameters / 1e6:,.1f} M parameters, {report.recipe.name}")
    for heading in ("treatment", "shape out × in", "linears", "before", "after"):
        table.add_column(heading, justify="left" if heading == "treatment" else "right")
    kinds = Counter((layer.treatment, layer.shape) for layer in report.layers)
    for (treatment, shape), count in kinds.items():
        same = [layer for layer in report.layers if (layer.treatment, layer.shape) == (treatment, shape)]
        before, after = sum(layer.bytes_before for layer in same), sum(layer.bytes_after for layer in same)
        table.add_row(treatment, f"{shape[0]} × {shape[1]}", str(count), megabytes(before), megabytes(after))
    table.add_section()
    table.add_row("whole transformer", "", "", megabytes(report.bytes_before), megabytes(report.bytes_after))
    why = "; ".join(f"{name}: {reason}" for name, reason in report.refused_backends.items())
    table.caption = f"{report.reduction:.2f}× smaller · kernels: {report.backend} ({why})"
    return table


def _layers(report: ModelReport) -> Table:
    table = Table()
    for heading in ("layer", "shape out × in", "treatment", "after"):
        table.add_column(heading, overflow="fold")
    for layer in report.layers:
        shape = f"{layer.shape[0]} × {layer.shape[1]}"
        table.add_row(layer.name, shape, layer.treatment, megabytes(layer.bytes_after))
    return table


def _kernels(plans: tuple[LayerPlan, ...]) -> Table:
    table = Table()
    for heading in ("shape out × in", "activations", "tokens", "backend", "kernels"):
        table.add_column(heading, overflow="fold")
    widths: dict[tuple[tuple[int, int], int, str, tuple[str, ...]], list[str]] = {}
    for layer in plans:
        width = "full" if layer.activation_bits is None else f"{layer.activation_bits} bits"
        same = layer.shape, layer.tokens, layer.plan.backend, layer.plan.kernels
        widths.setdefault(same, []).append(width)
    for (shape, tokens, backend, kernels), names in widths.items():
        table.add_row(f"{shape[0]} × {shape[1]}", "\n".join(names), f"{tokens:,}", backend, "\n".join(kernels))
    return table
