"""AnyFlow, Wan distilled to any number of steps, of whole videos and, as FAR, chunk after chunk.

Wan's layers, and an embedder of the time that a step ends at (``r_timestep``).
"""

from __future__ import annotations

from dvdq_models.families.family import USUAL, Call, Example, Family, Inputs, Rule
from dvdq_models.families.wan import CLIP_TOKENS


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    of_frames = of.timestep.expand(1, frames)
    inputs: Inputs = {
        "hidden_states": of.normal(1, frames, config.in_channels, height, width),
        "timestep": of_frames,
        "r_timestep": of_frames / 2,
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.text_dim),
    }
    if "chunk_partition" in config:
        # The first chunk, which has nothing before it in the cache.
        empty = of.normal(2, 1, config.num_attention_heads, 0, config.attention_head_dim)
        cache = dict.fromkeys(("full_cache", "compressed_cache"), empty)
        inputs["chunk_partition"] = [frames]
        inputs["kv_cache"] = dict.fromkeys(range(config.num_layers), cache)
        inputs["kv_cache_flag"] = {"num_cached_chunks": 0, "is_cache_step": False}
    if config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = of.normal(1, CLIP_TOKENS, config.image_dim)
    return inputs


ANYFLOW = Family(
    name="anyflow",
    classes=("AnyFlowTransformer3DModel", "AnyFlowFARTransformer3DModel"),
    rules=(
        Rule(r"blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]),
        Rule(r"blocks\.\d+\.ffn\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(r"condition_embedder\.((time|delta|text)_embedder\.linear_[12]|time_proj)|proj_out", "keep", lambda _: 8),
        Rule(
            r"condition_embedder\.image_embedder\.ff\.net\.(0\.proj|2)",
            "keep",
            lambda config: 2 if config["image_dim"] is not None else 0,
        ),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache=dict.fromkeys(
        ("AnyFlowTransformer3DModel", "AnyFlowFARTransformer3DModel"),
        "it is distilled to a few steps, of which none is like the one before",
    ),
    pipelines={"AnyFlowPipeline": Call(16, USUAL), "AnyFlowFARPipeline": Call(16, USUAL)},
)
