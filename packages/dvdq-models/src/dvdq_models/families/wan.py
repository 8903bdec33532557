"""Wan 2.1 and 2.2, text- and image-to-video, VACE, and SkyReels V2 and ChronoEdit, which have Wan's layers.

Their modulation is a parameter (``scale_shift_table``), not a linear, so nothing is weight-only. Both experts of an
A14B pipeline are ordinary transformers of this family.
"""

from __future__ import annotations

from dvdq_models.families.family import USUAL, Caching, Call, Config, Embedding, Example, Family, Inputs, Rule

CLIP_TOKENS = 257
"""Of the image that conditions Wan 2.1: 16 x 16 patches and the class token."""


def _blocks(config: Config) -> int:
    return int(config["num_layers"]) + _vace_blocks(config)


def _vace_blocks(config: Config) -> int:
    return len(config.get("vace_layers") or ())


def _inputs(of: Example) -> Inputs:
    inputs: Inputs = {
        "hidden_states": of.normal(1, of.config.in_channels, *of.latent),
        "timestep": of.timestep,
        "encoder_hidden_states": of.normal(1, of.text_tokens, of.config.text_dim),
    }
    if of.config.image_dim is not None:
        inputs["encoder_hidden_states_image"] = of.normal(1, CLIP_TOKENS, of.config.image_dim)
    if _vace_blocks(of.config):
        inputs["control_hidden_states"] = of.normal(1, of.config.vace_in_channels, *of.latent)
    if of.config.get("inject_sample_info"):
        inputs["fps"] = [0]  # 16 frames a second
    return inputs


def _fps(config: Config) -> int:
    """As ``wan/configs`` has it: 16, and 24 of TI2V 5B, whose autoencoder is the one of 48 channels."""
    return 24 if config.get("in_channels") == 48 else 16


_EXPERTS = USUAL | {"guidance_2": "guidance_scale_2"}

_CACHING = Caching(
    ("blocks",),
    {
        "timestep": Embedding("condition_embedder", 0),
        "timestep-projection": Embedding("condition_embedder", 1),
    },
)

WAN = Family(
    name="wan",
    classes=(
        "WanTransformer3DModel",
        "WanVACETransformer3DModel",
        "SkyReelsV2Transformer3DModel",
        "ChronoEditTransformer3DModel",
    ),
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
    inputs=_inputs,
    prompt_tokens=512,
    pipelines={
        "WanPipeline": Call(_fps, _EXPERTS),
        "WanImageToVideoPipeline": Call(_fps, _EXPERTS | {"image": "image"}),
        "WanVACEPipeline": Call(16, _EXPERTS),
        "WanVideoToVideoPipeline": Call(_fps, {}, needs="a video"),
        "LucyEditPipeline": Call(24, {}, needs="a video"),
        "ChronoEditPipeline": Call(16, USUAL | {"image": "image"}),
        "SkyReelsV2Pipeline": Call(24, USUAL),
        "SkyReelsV2ImageToVideoPipeline": Call(24, USUAL | {"image": "image"}),
        "SkyReelsV2DiffusionForcingPipeline": Call(24, USUAL),
        "SkyReelsV2DiffusionForcingImageToVideoPipeline": Call(24, USUAL | {"image": "image"}),
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline": Call(24, {}, needs="a video"),
    },
    teacache={
        "WanTransformer3DModel": _CACHING,
        "WanVACETransformer3DModel": "its control blocks run before the others and add between them",
        "SkyReelsV2Transformer3DModel": "its frames may have time steps of their own",
        "ChronoEditTransformer3DModel": _CACHING,
    },
    originals=("wan-",),
    experts={"transformer": "high_noise_model", "transformer_2": "low_noise_model"},
)
