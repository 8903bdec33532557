"""Cosmos 1 and Predict 2, text- and video-to-world: self- and cross attention, modulated through a bottleneck.

The bottleneck's linears (``norm1.linear_1`` to 256 channels and back) see one token a step: full activations.
"""

from __future__ import annotations

from dvdq_models.families.family import USUAL, Caching, Call, Config, Embedding, Example, Family, Inputs, Rule


def _inputs(of: Example) -> Inputs:
    config, (_, height, width) = of.config, of.latent
    inputs: Inputs = {
        "hidden_states": of.normal(1, config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.text_embed_dim),
        "fps": 30,
    }
    if config.concat_padding_mask:
        inputs["padding_mask"] = of.timestep.new_zeros(1, 1, 8 * height, 8 * width)
    return inputs


def _image(config: Config) -> int:
    return 1 if config["img_context_dim_in"] else 0


COSMOS = Family(
    name="cosmos",
    classes=("CosmosTransformer3DModel",),
    rules=(
        Rule(
            r"transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)", "quantize", lambda config: 8 * config["num_layers"]
        ),
        Rule(
            r"transformer_blocks\.\d+\.attn2\.[qkv]_img",
            "quantize",
            lambda config: 3 * config["num_layers"] * _image(config),
        ),
        Rule(r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", "quantize", lambda config: 2 * config["num_layers"]),
        Rule(
            r"transformer_blocks\.\d+\.norm[123]\.linear_[12]", "weight-only", lambda config: 6 * config["num_layers"]
        ),
        Rule(r"patch_embed\.proj|time_embed\.t_embedder\.linear_[12]", "keep", lambda _: 3),
        Rule(r"crossattn_proj\.0", "keep", lambda config: 1 if config["use_crossattn_projection"] else 0),
        Rule(r"img_context_proj\.0", "keep", _image),
        Rule(r"norm_out\.linear_[12]|proj_out", "keep", lambda _: 3),
    ),
    inputs=_inputs,
    prompt_tokens=512,
    compression=(8, 8),
    teacache={"CosmosTransformer3DModel": Caching(("transformer_blocks",), {"timestep": Embedding("time_embed", 1)})},
    pipelines={
        "CosmosTextToWorldPipeline": Call(30, USUAL),
        "CosmosVideoToWorldPipeline": Call(30, USUAL | {"image": "image"}),
        "Cosmos2VideoToWorldPipeline": Call(16, USUAL | {"image": "image"}),
        "Cosmos2_5_PredictBasePipeline": Call(16, USUAL),
        "Cosmos2_5_TransferPipeline": Call(30, {}, needs="a control video"),
    },
)
