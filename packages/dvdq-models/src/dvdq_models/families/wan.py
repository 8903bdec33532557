"""Wan 2.1 and 2.2, text- and image-to-video, VACE, and SkyReels V2, which has Wan's layers under another class.

Their modulation is a parameter (``scale_shift_table``), not a linear, so nothing is weight-only. Both experts of an
A14B pipeline are ordinary transformers of this family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dvdq_models.families.rules import Family, Rule


def _blocks(config: Mapping[str, Any]) -> int:
    return int(config["num_layers"]) + _vace_blocks(config)


def _vace_blocks(config: Mapping[str, Any]) -> int:
    return len(config.get("vace_layers") or ())


WAN = Family(
    name="wan",
    classes=("WanTransformer3DModel", "WanVACETransformer3DModel", "SkyReelsV2Transformer3DModel"),
    rules=(
        Rule(
            r"(vace_)?blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)",
            "quantize",
            lambda config: 8 * _blocks(config),
        ),
        Rule(r"(vace_)?blocks\.\d+\.ffn\.net\.(0\.proj|2)", "quantize", lambda config: 2 * _blocks(config)),
        # Keys and values of an image's tokens: few tokens, but 13 % of an image-to-video model's parameters.
        Rule(
            r"(vace_)?blocks\.\d+\.attn2\.add_(k|v)_proj",
            "quantize",
            lambda config: 2 * _blocks(config) if config["added_kv_proj_dim"] is not None else 0,
        ),
        # What a VACE block adds to the video is a product over all its tokens, like an attention's output.
        Rule(r"vace_blocks\.\d+\.proj_out", "quantize", _vace_blocks),
        # The one linear that reads the embedded control signal before any norm, so part of the embedder.
        Rule(r"vace_blocks\.0\.proj_in", "keep", lambda config: 1 if _vace_blocks(config) else 0),
        Rule(r"condition_embedder\.(time_embedder|text_embedder)\.linear_[12]", "keep", lambda _: 4),
        Rule(r"condition_embedder\.time_proj", "keep", lambda _: 1),
        Rule(
            r"condition_embedder\.image_embedder\.ff\.net\.(0\.proj|2)",
            "keep",
            lambda config: 2 if config["image_dim"] is not None else 0,
        ),
        Rule(r"fps_projection\.net\.(0\.proj|2)", "keep", lambda config: 2 if config.get("inject_sample_info") else 0),
        Rule(r"proj_out", "keep", lambda _: 1),
    ),
)
