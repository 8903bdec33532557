"""Wan 2.1 text-to-video: attention and feed-forward are 98 % of the parameters.

Its modulation is a parameter (``scale_shift_table``), not a linear, so nothing is weight-only.
"""

from __future__ import annotations

from dvdq_models.families.rules import Family, Rule

WAN = Family(
    name="wan",
    classes=("WanTransformer3DModel",),
    rules=(
        Rule(r"blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]),
        Rule(r"blocks\.\d+\.ffn\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"condition_embedder\.(time_embedder|text_embedder)\.linear_[12]", "keep", lambda _: 4),
        Rule(r"condition_embedder\.time_proj", "keep", lambda _: 1),
        Rule(r"proj_out", "keep", lambda _: 1),
    ),
)
