"""Wan 2.1 and 2.2, text- and image-to-video, VACE, and SkyReels V2 and ChronoEdit, which have Wan's layers.

Their modulation is a parameter (``scale_shift_table``), not a linear, so nothing is weight-only. Both experts of an
A14B pipeline are ordinary transformers of this family.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.nn.functional import silu

from dvdq_models.families.family import (
    USUAL,
    Caching,
    Call,
    Config,
    Embedding,
    Example,
    Family,
    Inputs,
    OriginalNames,
    Rule,
)
from dvdq_models.families.moments import Channels, Weights, gelu_tanh, time_steps

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


def _moments(weights: Weights, config: Config) -> Iterator[tuple[str, Channels]]:
    embedder = "condition_embedder"
    normal = Channels.normal(config["num_attention_heads"] * config["attention_head_dim"])
    time = time_steps(config["freq_dim"])
    time = time.linear(weights, f"{embedder}.time_embedder.linear_1").through(silu)
    time = time.linear(weights, f"{embedder}.time_embedder.linear_2").through(silu)
    time = time.linear(weights, f"{embedder}.time_proj")
    if config.get("inject_sample_info"):
        rate = Channels.known(weights("fps_embedding.weight")[:1])
        time += rate.linear(weights, "fps_projection.net.0.proj").through(silu).linear(weights, "fps_projection.net.2")
    text = Channels.normal(config["text_dim"]).linear(weights, f"{embedder}.text_embedder.linear_1").through(gelu_tanh)
    text = text.linear(weights, f"{embedder}.text_embedder.linear_2")
    image = None
    if config["added_kv_proj_dim"] is not None:
        image = normal.affine(weights, f"{embedder}.image_embedder.norm2")
    names = [f"blocks.{i}" for i in range(config["num_layers"])]
    for block in names + [f"vace_blocks.{i}" for i in range(_vace_blocks(config))]:
        table = Channels.known(weights(f"{block}.scale_shift_table").flatten(1))
        shift, scale, _, hidden_shift, hidden_scale, _ = (time + table).chunk(6)
        attending = normal.modulated(scale, shift)
        yield from ((f"{block}.attn1.to_{part}", attending) for part in "qkv")
        yield f"{block}.attn1.to_out.0", attending.linear(weights, f"{block}.attn1.to_v")
        yield f"{block}.attn2.to_q", normal.affine(weights, f"{block}.norm2") if config["cross_attn_norm"] else normal
        yield from ((f"{block}.attn2.to_{part}", text) for part in "kv")
        values = text.linear(weights, f"{block}.attn2.to_v")
        if image is not None:
            yield from ((f"{block}.attn2.add_{part}_proj", image) for part in "kv")
            values += image.linear(weights, f"{block}.attn2.add_v_proj")
        yield f"{block}.attn2.to_out.0", values
        hidden = normal.modulated(hidden_scale, hidden_shift)
        yield f"{block}.ffn.net.0.proj", hidden
        yield f"{block}.ffn.net.2", hidden.linear(weights, f"{block}.ffn.net.0.proj").through(gelu_tanh)


def _fps(config: Config) -> int:
    """As ``wan/configs`` has it: 16, and 24 of TI2V 5B, whose autoencoder is the one of 48 channels."""
    return 24 if config.get("in_channels") == 48 else 16


_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
_IMAGE_ATTENTION = {"k_img": "add_k_proj", "v_img": "add_v_proj", "norm_k_img": "norm_added_k"}
_BLOCK = {
    "modulation": "scale_shift_table",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{f"self_attn.{theirs}": f"attn1.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"cross_attn.{theirs}": f"attn2.{ours}" for theirs, ours in (_ATTENTION | _IMAGE_ATTENTION).items()},
}
_ORIGINAL_NAMES: OriginalNames = {
    "patch_embedding": "patch_embedding",
    "vace_patch_embedding": "vace_patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    **{f"{blocks}.{{}}.{t}": f"{blocks}.{{}}.{o}" for blocks in ("blocks", "vace_blocks") for t, o in _BLOCK.items()},
    "vace_blocks.{}.before_proj": "vace_blocks.{}.proj_in",
    "vace_blocks.{}.after_proj": "vace_blocks.{}.proj_out",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}

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
    moments=_moments,
    originals=("wan-",),
    original_names={"WanTransformer3DModel": _ORIGINAL_NAMES, "WanVACETransformer3DModel": _ORIGINAL_NAMES},
    experts={"transformer": "high_noise_model", "transformer_2": "low_noise_model"},
)
