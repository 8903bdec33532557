"""Helios, long videos in chunks that see those before them: Wan's layers, and a history beside the latents."""

from __future__ import annotations

from dvdq_models.families.family import USUAL, Caching, Call, Embedding, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    return {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, of.config.text_dim),
    }


HELIOS = Family(
    name="helios",
    classes=("HeliosTransformer3DModel",),
    rules=(
        Rule(r"blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]),
        Rule(r"blocks\.\d+\.ffn\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(
            r"blocks\.\d+\.attn2\.add_(k|v)_proj",
            "quantize",
            lambda config: 2 * config["num_layers"] if config["added_kv_proj_dim"] is not None else 0,
        ),
        Rule(r"condition_embedder\.((time|text)_embedder\.linear_[12]|time_proj)|proj_out", "keep", lambda _: 6),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    teacache={"HeliosTransformer3DModel": Caching(("blocks",), {"timestep": Embedding("condition_embedder", 0)})},
    pipelines={
        "HeliosPipeline": Call(24, USUAL),
        "HeliosPyramidPipeline": Call(24, {name: to for name, to in USUAL.items() if name != "steps"}),
    },
)
