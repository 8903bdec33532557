"""``dvdq inspect SRC``: what a recipe does, or did, to each layer, from a config alone."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dvdq_kernels.plan import Plan
from dvdq_models.cli.console import console, megabytes, print_json, typed
from dvdq_models.cli.options import AsJson, Bits, Delta, Feedback, Finish, FirstHigh, LastHigh, RecipeName
from dvdq_models.cli.recipe import recipe_from
from dvdq_models.comfyui.reading import QuantizedFile, read_file
from dvdq_models.families import family_of
from dvdq_models.families.configurations import Config, empty_transformer, stored_recipe
from dvdq_models.families.family import Size
from dvdq_models.families.pipelines import latent_size
from dvdq_models.inspecting.memory import moments_bytes, pass_bytes
from dvdq_models.inspecting.sizes import LayerPlan, ModelReport, describe, plan_layers, together
from dvdq_models.inspecting.sources import configuration_folder, source_configs
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

_SMALL = (9, 256, 256)
"""A video of which second moments are counted: their sizes are the same for all."""


def inspect(
    source: Annotated[
        str, typer.Argument(help="What dvdq quantize takes or wrote, dvdq export wrote, or a config.json.")
    ],
    recipe: RecipeName = "dvd-quant",
    bits: Bits = "W4A6",
    delta: Delta = None,
    first_high: FirstHigh = None,
    last_high: LastHigh = None,
    finish: Finish = False,
    feedback: Feedback = False,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    kernels: Annotated[bool, typer.Option("--kernels", help="Tell which kernels run for each kind of layer.")] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of the video, for --kernels.")] = 32760,
    capability: Annotated[
        int | None, typer.Option(help="Compute capability, e.g. 90, of a GPU that need not be here, for --kernels.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Frames x height x width, e.g. 81x480x832: the memory of one forward pass.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="For an original checkpoint, as for dvdq quantize.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show sizes before and after, of both transformers if there are two; a quantized one tells its own recipe."""
    with typed():
        chosen = recipe_from(recipe, bits, delta, first_high, last_high, finish=finish, feedback=feedback)
        size = None if video is None else _size(video)
        if capability is not None and not kernels:
            raise DvdqError("inspect", where="--capability", expected="--kernels with it", got="none")
    path = configuration_folder(source)
    if path.suffix == ".safetensors" and path.is_file() and (file := read_file("inspect", path)) is not None:
        _show_file(file, layers=layers, as_json=as_json)
        return
    configs = source_configs(path, config)
    reports = {name: describe(empty_transformer(of), stored_recipe(of) or chosen) for name, of in configs.items()}
    report = together(reports) if len(reports) > 1 else next(iter(reports.values()))
    plans = plan_layers(report, tokens, capability) if kernels else ()
    peak = None if size is None else _pass_bytes(configs, chosen, path, size)
    matrices = _moments_bytes(configs, path) if feedback else []
    if as_json:
        parts = {name: _sizes(part) for name, part in reports.items()}
        planned = {"kernels": [dataclasses.asdict(plan) for plan in plans]} if kernels else {}
        needed = {"moments_bytes": sum(matrices), "largest_moments_bytes": max(matrices)} if feedback else {}
        print_json(report.to_dict() | {"transformers": parts, "pass_bytes": peak} | planned | needed)
        return
    console.print(_summary(report, reports))
    if peak is not None:
        console.print(f"one forward pass of {video} takes {megabytes(peak)} beside the weights", highlight=False)
    if feedback:
        written, least = megabytes(sum(matrices)), megabytes(max(matrices))
        console.print(f"dvdq calibrate --moments writes {written}; --moments-memory from {least}", highlight=False)
    if layers:
        console.print(_layers(report))
    if kernels:
        console.print(_kernels(plans))


def _show_file(file: QuantizedFile, *, layers: bool, as_json: bool) -> None:
    """A file of ComfyUI's format, which tells all of itself."""
    if as_json:
        print_json(file.to_dict())
        return
    table = Table(title=f"ComfyUI's format, {megabytes(file.bytes)}")
    for heading in ("layer", "format", "stored as") if layers else ("format", "linears", "bytes"):
        table.add_column(heading, overflow="fold")
    if layers:
        for layer in file.layers:
            table.add_row(layer.name, layer.format, " × ".join(map(str, layer.stored)))
    else:
        for name, count in Counter(layer.format for layer in file.layers).items():
            size = sum(layer.bytes for layer in file.layers if layer.format == name)
            table.add_row(name, str(count), megabytes(size))
        table.add_row("not quantized", "", megabytes(file.other_bytes))
    console.print(table)


def _size(video: str) -> Size:
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", video)
    if match is None or 0 in (size := tuple(map(int, match.groups()))):
        raise DvdqError("inspect", where="--video", expected="frames x height x width, as 81x480x832", got=video)
    frames, height, width = size
    return frames, height, width


def _pass_bytes(configs: Mapping[str, Config], chosen: Recipe, path: Path, video: Size) -> int:
    """Of the transformer that needs most."""
    needed = []
    for config in configs.values():
        transformer = empty_transformer(config)
        latent = latent_size(path, video, family_of(transformer))
        needed.append(pass_bytes(transformer, stored_recipe(config) or chosen, latent))
    return max(needed)


def _moments_bytes(configs: Mapping[str, Config], path: Path) -> list[int]:
    """Of each matrix of second moments, of all transformers."""
    transformers = [empty_transformer(config) for config in configs.values()]
    return [
        size
        for transformer in transformers
        for size in moments_bytes(transformer, latent_size(path, _SMALL, family_of(transformer)))
    ]


def _sizes(report: ModelReport) -> dict[str, float]:
    keys = ("parameters", "bytes_before", "bytes_after", "bytes_with_finish_on_host", "reduction")
    return {key: getattr(report, key) for key in keys}


def _summary(report: ModelReport, parts: Mapping[str, ModelReport]) -> Table:
    table = Table(title=f"{report.family}, {report.parameters / 1e6:,.1f} M parameters, {report.recipe.name}")
    for heading in ("treatment", "shape out × in", "linears", "before", "after"):
        table.add_column(heading, justify="left" if heading == "treatment" else "right")
    kinds = Counter((layer.treatment, layer.shape) for layer in report.layers)
    for (treatment, shape), count in kinds.items():
        same = [layer for layer in report.layers if (layer.treatment, layer.shape) == (treatment, shape)]
        before, after = sum(layer.bytes_before for layer in same), sum(layer.bytes_after for layer in same)
        table.add_row(treatment, f"{shape[0]} × {shape[1]}", str(count), megabytes(before), megabytes(after))
    table.add_section()
    for name, part in parts.items() if len(parts) > 1 else ():
        table.add_row(name, "", "", megabytes(part.bytes_before), megabytes(part.bytes_after))
    whole = "whole transformer" if len(parts) == 1 else "together"
    table.add_row(whole, "", "", megabytes(report.bytes_before), megabytes(report.bytes_after))
    if report.recipe.finish is not None:
        table.add_row("of it on the device, --finish-on host", "", "", "", megabytes(report.bytes_with_finish_on_host))
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
        width += " (finish)" if layer.finish else ""
        same = layer.shape, layer.tokens, layer.plan.backend, layer.plan.kernels
        widths.setdefault(same, []).append(width)
    for (shape, tokens, backend, kernels), names in widths.items():
        table.add_row(f"{shape[0]} × {shape[1]}", "\n".join(names), f"{tokens:,}", backend, "\n".join(kernels))
    table.caption = "\n".join(dict.fromkeys(map(_why, (layer.plan for layer in plans))))
    return table


def _why(plan: Plan) -> str:
    refused = "; ".join(f"{name}: {reason}" for name, reason in plan.refused.items())
    return f"{plan.backend}, {plan.reason}" + (f" ({refused})" if refused else "")
