"""The linears of HunyuanVideo and Wan 2.1, how many of each there are, and how many tokens a forward pass has."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]
"""Tokens, output channels and input channels of a linear; tokens and channels of activations alone."""


@dataclass(frozen=True)
class Layer:
    """``count`` linears ``[out_features, in_features]``, each with 4-bit weights."""

    out_features: int
    in_features: int
    count: int


@dataclass(frozen=True)
class Model:
    """A model's linears. ``layers`` see every token; ``modulation`` sees one, and keeps full activations (W4A16)."""

    layers: tuple[Layer, ...]
    tokens: tuple[int, ...]
    modulation: tuple[Layer, ...] = ()


MODELS = {
    "HunyuanVideo": Model(
        layers=(Layer(3072, 3072, 280), Layer(12288, 3072, 80), Layer(3072, 12288, 40), Layer(3072, 15360, 40)),
        tokens=(118_800, 67_320),
        modulation=(Layer(18432, 3072, 40), Layer(9216, 3072, 40)),
    ),
    "Wan 2.1 14B": Model(
        layers=(Layer(5120, 5120, 320), Layer(13824, 5120, 40), Layer(5120, 13824, 40)), tokens=(75_600, 32_760)
    ),
    "Wan 2.1 1.3B": Model(
        layers=(Layer(1536, 1536, 240), Layer(8960, 1536, 30), Layer(1536, 8960, 30)), tokens=(32_760,)
    ),
}


def linears() -> tuple[Shape, ...]:
    """Every ``(tokens, out, in)``, the largest number of tokens of each model first."""
    rounds = max(len(model.tokens) for model in MODELS.values())
    return tuple(
        (model.tokens[turn], layer.out_features, layer.in_features)
        for turn in range(rounds)
        for model in MODELS.values()
        if turn < len(model.tokens)
        for layer in model.layers
    )


def activations() -> tuple[Shape, ...]:
    """Every ``(tokens, in)`` that is rotated and quantized."""
    return tuple(dict.fromkeys((tokens, channels) for tokens, _, channels in linears()))


def name(shape: Shape) -> str:
    """``118800x12288x3072``."""
    return "x".join(map(str, shape))


def parse(text: str) -> tuple[Shape, ...]:
    """Shapes separated by commas, each as :func:`name` writes it."""
    return tuple(tuple(int(size) for size in part.split("x")) for part in text.split(","))
