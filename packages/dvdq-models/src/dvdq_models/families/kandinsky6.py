"""Kandinsky 6, a video and its sound, each with blocks of the text alone, which stay, and attending to the other.

Its upscaler (SR) has neither text nor sound. Modulation sees one token a step and keeps full activations. Latents are
``[1, frames, height, width, channels]``.
"""

from __future__ import annotations

from math import ceil

from dvdq_models.families.family import USUAL, Caching, Call, Config, Example, Family, Inputs, Rule
from dvdq_models.families.kandinsky import ATTENTION, text_blocks, video_blocks

FPS, SOUND_RATE, SOUND_HOP = 24, 44_100, 1024
"""Of the pipeline: frames a second, samples a second, and samples that become one latent of the sound."""


def _channels(config: Config) -> int:
    """Of what goes in: the noise, what it is conditioned on, and a mask."""
    return 2 * int(config["in_visual_dim"]) + 1


def _inputs(of: Example) -> Inputs:
    config, (frames, height, width) = of.config, of.latent
    sound = ceil(((frames - 1) * 4 + 1) / FPS * SOUND_RATE / SOUND_HOP)
    channels = _channels(config) if config.visual_cond else config.in_visual_dim
    return {
        "hidden_states": of.normal(1, frames, height, width, channels),
        "encoder_hidden_states": of.normal(1, of.text_tokens, config.in_text_dim),
        "pooled_projections": of.normal(1, config.in_text_dim2),
        "timestep": of.timestep,
        "audio_hidden_states": of.normal(1, sound, config.in_audio_dim),
    }


def _upscaler_inputs(of: Example) -> Inputs:
    return {"hidden_states": of.normal(1, *of.latent, _channels(of.config)), "timestep": of.timestep}


_BLOCK = r"visual_transformer_blocks\.\d+"
_FEED_FORWARD = r"feed_forward\.net\.(0\.proj|2)"
_TIME = r"time_embeddings\.timestep_embedder\.linear_[12]"

KANDINSKY_6 = Family(
    name="kandinsky-6",
    classes=("Kandinsky6Transformer3DModel",),
    rules=(
        Rule(
            rf"{_BLOCK}\.((video|audio)_dec_block\.(self|cross)|va_cross|av_cross)_attention\.({ATTENTION})",
            "quantize",
            lambda config: 24 * video_blocks(config),
        ),
        Rule(
            rf"{_BLOCK}\.(video|audio)_dec_block\.{_FEED_FORWARD}",
            "quantize",
            lambda config: 4 * video_blocks(config),
        ),
        Rule(
            rf"{_BLOCK}\.((video|audio)_dec_block\.visual|va|av)_modulation\.out_layer",
            "weight-only",
            lambda config: 4 * video_blocks(config),
        ),
        Rule(
            rf"(video|audio)_text_transformer_blocks\.\d+\.(attn\.({ATTENTION})|{_FEED_FORWARD}|text_modulation\.out_layer)",
            "keep",
            lambda config: 14 * text_blocks(config),
        ),
        Rule(rf"(video|audio)_({_TIME}|(pooled_)?text_embeddings\.in_layer)", "keep", lambda _: 8),
        Rule(
            r"(visual|audio)_embeddings\.in_layer|(audio_)?out_layer\.(modulation\.)?out_layer",
            "keep",
            lambda _: 6,
        ),
    ),
    inputs=_inputs,
    prompt_tokens=1024,
    teacache={
        "Kandinsky6Transformer3DModel": Caching(
            ("visual_transformer_blocks",), {"timestep": lambda _, argument: argument("time_embed")[0]}, ("vis", "aud")
        )
    },
    pipelines={"Kandinsky6TI2VAPipeline": Call(FPS, USUAL, prompt_alone=False)},
)

KANDINSKY_6_SR = Family(
    name="kandinsky-6-sr",
    classes=("Kandinsky6SRTransformer3DModel",),
    rules=(
        Rule(
            rf"{_BLOCK}\.(self_attention\.({ATTENTION})|{_FEED_FORWARD})",
            "quantize",
            lambda config: 6 * video_blocks(config),
        ),
        Rule(rf"{_BLOCK}\.visual_modulation\.out_layer", "weight-only", video_blocks),
        Rule(rf"{_TIME}|visual_embeddings\.in_layer|out_layer\.(modulation\.)?out_layer", "keep", lambda _: 5),
    ),
    inputs=_upscaler_inputs,
    prompt_tokens=0,
    passes=1,
    compression=(4, 16),
    teacache={"Kandinsky6SRTransformer3DModel": "it takes two to four steps, of which none is like the one before"},
    pipelines={"Kandinsky6SRPipeline": Call(FPS, {}, needs="a video")},
)
