"""``memory.md``."""

from __future__ import annotations

from dvdq_eval.memory.results import Memory, MethodMemory
from dvdq_eval.methods import title_of
from dvdq_eval.sheets.markdown import markdown
from dvdq_models.cli.console import megabytes


def memory_markdown(memory: Memory) -> str:
    """Weights by part and a pass by method, then a pipeline's other parts."""
    video = f"{memory.frames}x{memory.height}x{memory.width}"
    measured = "" if memory.device is None else f"; measured on {memory.device}"
    parts = [
        f"# Memory of {memory.model}, {video}\n",
        f"Weights of the transformer, and what a pass of {memory.tokens:,} tokens in {memory.dtype} needs beside "
        f"them{measured}.\n",
        markdown(
            ["method", "quantized", "weight only", "kept", "together", "smaller", "a pass", "measured"],
            map(_cells, memory.methods),
        ),
    ]
    if memory.components:
        sizes = ((name, megabytes(size)) for name, size in memory.components.items())
        parts += ["The pipeline's other parts, as they are stored:\n", markdown(["part", "size"], sizes)]
    return "\n".join(parts)


def _cells(method: MethodMemory) -> list[str]:
    weights = method.weights
    sizes = (weights.quantized, weights.weight_only, weights.kept, weights.total)
    return [
        title_of(method.label, method.bits),
        *map(megabytes, sizes),
        f"{method.ratio:.2f} ×",
        megabytes(method.counted_pass_bytes),
        _measured(method),
    ]


def _measured(method: MethodMemory) -> str:
    if method.measured_pass_bytes is not None:
        return megabytes(method.measured_pass_bytes)
    return "does not fit" if method.fits is False else "–"
