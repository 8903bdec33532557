"""What lies on disk: the transformer's parameters by what a recipe does to them, and a pipeline's other parts."""

from __future__ import annotations

from collections import Counter

from dvdq_eval.latency.subject import Subject
from dvdq_eval.memory.results import WeightBytes
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.families.pipelines import TRANSFORMERS, PipelineFolder, transformer_configs
from dvdq_models.inspecting.sizes import describe, together
from dvdq_reference.spec.recipe import Recipe

ANY_RECIPE = Recipe.named("minmax")
"""Which linears are quantized is the family's table, whatever the recipe."""


def weight_parts(subject: Subject, recipe: Recipe | None) -> WeightBytes:
    """The parameters of all transformers of ``subject``; without a recipe, the same linears in 16 bits."""
    configs = transformer_configs(subject.pipeline or subject.config)
    report = together(
        {name: describe(empty_transformer(config), recipe or ANY_RECIPE) for name, config in configs.items()}
    )
    parts: Counter[str] = Counter()
    for layer in report.layers:
        parts[layer.treatment] += layer.bytes_before if recipe is None else layer.bytes_after
    total = report.bytes_before if recipe is None else report.bytes_after
    quantized, weight_only = parts["quantize"], parts["weight-only"]
    return WeightBytes(quantized, weight_only, kept=total - quantized - weight_only)


def component_bytes(subject: Subject) -> dict[str, int]:
    """Bytes of the safetensors of each part of a pipeline that is no transformer."""
    if subject.pipeline is None:
        return {}
    names = PipelineFolder.open("memory", subject.pipeline).components
    sizes = {
        name: sum(path.stat().st_size for path in (subject.pipeline / name).glob("*.safetensors"))
        for name in names
        if name not in TRANSFORMERS
    }
    return {name: size for name, size in sizes.items() if size}
