"""Synthetic linears at the full shapes of real models: the output error of each recipe, with no model at hand.

Weights have heavy tails, activations the outliers that the paper and its sources describe, and the layer under test is
the one that models run. Nothing here was trained: a figure says what a recipe does to such a distribution, and the
order of two recipes on it, not how good a video is.
"""
