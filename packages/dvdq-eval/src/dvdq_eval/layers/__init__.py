"""Synthetic linears at the full shapes of real models: the output error of each recipe, with no model at hand.

Weights have heavy tails, activations the outliers that the paper and its sources describe, and the layer under test is
the one that models run. Nothing here was trained: a figure says what a recipe does to such a distribution, and the
order of two recipes on it, not how good a video is.
"""

from dvdq_eval.layers.activations import KINDS
from dvdq_eval.layers.check import check_layers
from dvdq_eval.layers.recipes import QUICK_SHAPES, RECIPES, SHAPES, VARIANTS, Shape
from dvdq_eval.layers.results import LayerRow, LayerTable, Range

__all__ = [
    "KINDS",
    "QUICK_SHAPES",
    "RECIPES",
    "SHAPES",
    "VARIANTS",
    "LayerRow",
    "LayerTable",
    "Range",
    "Shape",
    "check_layers",
]
