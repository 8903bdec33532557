"""HunyuanVideo, text- and image-to-video, and Framepack: blocks of two streams, then of one.

A quarter of the parameters only modulate. Such a linear sees one token a video, so its weight is what costs: it keeps
full activations (W4A16). The token refiner inside ``context_embedder`` sees the text alone and stays, as do the
embedders and the last projection. How an image conditions the video (``image_condition_type``) changes no linear.
"""

from __future__ import annotations

from dvdq_models.families.rules import Family, Rule

HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    classes=("HunyuanVideoTransformer3DModel", "HunyuanVideoFramepackTransformer3DModel"),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0|add_out)|add_(q|k|v)_proj)",
            "quantize",
            lambda config: 8 * config["num_layers"],
        ),
        Rule(
            r"transformer_blocks\.\d+\.ff(_context)?\.net\.(0\.proj|2)",
            "quantize",
            lambda config: 4 * config["num_layers"],
        ),
        Rule(
            r"single_transformer_blocks\.\d+\.(attn\.to_(q|k|v)|proj_mlp|proj_out)",
            "quantize",
            lambda config: 5 * config["num_single_layers"],
        ),
        Rule(
            r"transformer_blocks\.\d+\.norm1(_context)?\.linear", "weight-only", lambda config: 2 * config["num_layers"]
        ),
        Rule(
            r"single_transformer_blocks\.\d+\.norm\.linear", "weight-only", lambda config: config["num_single_layers"]
        ),
        Rule(
            r"context_embedder\.token_refiner\.refiner_blocks\.\d+\.(attn\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|norm_out\.linear)",
            "keep",
            lambda config: 7 * config["num_refiner_layers"],
        ),
        Rule(r"context_embedder\.(proj_in|time_text_embed\.\w+\.linear_[12])", "keep", lambda _: 5),
        Rule(
            r"time_text_embed\.(timestep|text|guidance)_embedder\.linear_[12]",
            "keep",
            lambda config: 6 if config["guidance_embeds"] else 4,
        ),
        Rule(r"image_projection\.(up|down)", "keep", lambda config: 2 if config.get("has_image_proj") else 0),
        Rule(r"norm_out\.linear|proj_out", "keep", lambda _: 2),
    ),
)
