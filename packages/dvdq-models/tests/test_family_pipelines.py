"""Pipelines of every family that run at a tiny size: one decision a step, whatever they tell of their steps and passes.

CogVideoX, LTX and Mochi run both passes of guidance as one batch, Mochi with a time that rises; HunyuanVideo 1.5 and
Motif-Video name passes as their guiders do; Kandinsky 5 tells nothing, and writes each step's latents over the last's.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from dvdq_models import Recipe, quantize, trace
from dvdq_models.switching.hook import follow

STEPS = 4
HEADS = {"num_attention_heads": 2, "attention_head_dim": 64}
TEXT = 32
"""Channels of the text; a prompt has four tokens."""


class Autoencoder(nn.Module):
    """What a pipeline asks its autoencoder for before it decodes."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        vars(self).update(config)


def _text(mask: torch.dtype = torch.float32, attention: str = "prompt_attention_mask") -> dict[str, torch.Tensor]:
    arguments = {}
    for prefix in ("", "negative_"):
        arguments[f"{prefix}prompt_embeds"] = torch.randn(1, 4, TEXT)
        if attention:
            arguments[f"{prefix}{attention}"] = torch.ones(1, 4, dtype=mask)
    return arguments


def _cogvideox() -> tuple[Any, dict[str, Any]]:
    config = {"time_embed_dim": 128, "text_embed_dim": TEXT, "num_layers": 1, "in_channels": 4, "out_channels": 4}
    sizes = {"sample_width": 4, "sample_height": 4, "sample_frames": 5, "max_text_seq_length": 4}
    transformer = diffusers.CogVideoXTransformer3DModel(**HEADS, **config, **sizes, spatial_interpolation_scale=1.0)
    pipeline = diffusers.CogVideoXPipeline(None, None, None, transformer, diffusers.CogVideoXDDIMScheduler())
    return pipeline, {**_text(attention=""), "num_frames": 5}


def _ltx() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.LTXVideoTransformer3DModel(
        **HEADS, in_channels=8, out_channels=8, cross_attention_dim=128, num_layers=1, caption_channels=TEXT
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.LTXPipeline(scheduler, None, None, None, transformer), {**_text(), "num_frames": 9}


def _mochi() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.MochiTransformer3DModel(
        num_attention_heads=6,
        attention_head_dim=64,
        num_layers=1,
        pooled_projection_dim=384,
        in_channels=4,
        text_embed_dim=TEXT,
        time_embed_dim=64,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return diffusers.MochiPipeline(scheduler, None, None, None, transformer), {**_text(torch.bool), "num_frames": 7}


def _hunyuan_video_15() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        **HEADS,
        in_channels=9,
        out_channels=4,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=TEXT,
        text_embed_2_dim=16,
        image_embed_dim=16,
        rope_axes_dim=(16, 24, 24),
        task_type="t2v",
    )
    pipeline = diffusers.HunyuanVideo15Pipeline(
        None,
        None,
        transformer,
        Autoencoder(latent_channels=4, temporal_compression_ratio=4, spatial_compression_ratio=16),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0),
        None,
        None,
        diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )
    glyphs = {}
    for prefix in ("", "negative_"):
        glyphs[f"{prefix}prompt_embeds_2"] = torch.randn(1, 4, 16)
        glyphs[f"{prefix}prompt_embeds_mask_2"] = torch.ones(1, 4)
    return pipeline, {**_text(attention="prompt_embeds_mask"), **glyphs, "num_frames": 5}


def _motif_video() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.MotifVideoTransformer3DModel(
        **HEADS,
        in_channels=9,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=TEXT,
        rope_axes_dim=(16, 24, 24),
    )
    pipeline = diffusers.MotifVideoPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(),
        Autoencoder(z_dim=4, scale_factor_temporal=4, scale_factor_spatial=8),
        None,
        None,
        transformer,
        diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )
    return pipeline, {**_text(), "num_frames": 5}


def _kandinsky_5() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=TEXT,
        in_text_dim2=16,
        time_dim=128,
        model_dim=128,
        ff_dim=256,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(16, 24, 24),
        visual_cond=True,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipeline = diffusers.Kandinsky5T2VPipeline(transformer, None, None, None, None, None, scheduler)
    arguments = {}
    for prefix in ("", "negative_"):
        arguments[f"{prefix}prompt_embeds_qwen"] = torch.randn(1, 4, TEXT)
        arguments[f"{prefix}prompt_embeds_clip"] = torch.randn(1, 16)
        arguments[f"{prefix}prompt_cu_seqlens"] = torch.tensor([0, 4])
    return pipeline, {**arguments, "num_frames": 5}


def _easyanimate() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.EasyAnimateTransformer3DModel(
        **HEADS, in_channels=4, out_channels=4, patch_size=2, num_layers=1, time_embed_dim=128, text_embed_dim=TEXT
    )
    autoencoder = Autoencoder(latent_channels=4, temporal_compression_ratio=4, spatial_compression_ratio=8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.EasyAnimatePipeline(autoencoder, None, None, transformer, scheduler), {**_text(), "num_frames": 5}


def _allegro() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=96,
        num_layers=1,
        cross_attention_dim=384,
        caption_channels=TEXT,
        sample_height=4,
        sample_width=4,
        sample_frames=2,
    )
    scheduler = diffusers.EulerAncestralDiscreteScheduler()
    arguments = {**_text(), "negative_prompt": None, "num_frames": 8}
    return diffusers.AllegroPipeline(None, None, None, transformer, scheduler), arguments


def _anyflow() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.AnyFlowTransformer3DModel(
        **HEADS, text_dim=TEXT, freq_dim=64, ffn_dim=256, num_layers=1, rope_max_seq_len=32
    )
    scheduler = diffusers.FlowMapEulerDiscreteScheduler()
    return diffusers.AnyFlowPipeline(None, None, transformer, None, scheduler), {**_text(attention=""), "num_frames": 5}


BUILD: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "cogvideox": _cogvideox,
    "ltx": _ltx,
    "mochi": _mochi,
    "hunyuan-video-1.5": _hunyuan_video_15,
    "motif-video": _motif_video,
    "kandinsky-5": _kandinsky_5,
    "easyanimate": _easyanimate,
    "allegro": _allegro,
    "anyflow": _anyflow,
}


# diffusers' own: casts of Mochi on a CPU, Allegro's old scheduler.
@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:__array__ implementation")
@pytest.mark.parametrize("family", BUILD)
def test_a_step_is_one_decision_and_a_video_one_trace(family: str) -> None:
    torch.manual_seed(0)
    pipeline, arguments = BUILD[family]()
    pipeline.set_progress_bar_config(disable=True)
    passes = 0

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    pipeline.transformer.register_forward_pre_hook(count)
    quantize(pipeline.transformer.eval(), Recipe.named("dvd-quant", "W4A6"))
    follow(pipeline)
    for _ in range(2):
        generator = torch.Generator().manual_seed(0)
        pipeline(
            **arguments,
            height=64,
            width=64,
            num_inference_steps=STEPS,
            output_type="latent",
            generator=generator,
        )
        decisions = trace(pipeline.transformer)
        assert [decision.step for decision in decisions] == list(range(STEPS))
        assert [decision.distance is not None for decision in decisions] == [False] + [True] * (STEPS - 1)
    assert passes in (2 * STEPS, 4 * STEPS)
