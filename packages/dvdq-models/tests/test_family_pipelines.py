"""Pipelines of every family that run at a tiny size: one decision a step, whatever they tell of their steps and passes.

CogVideoX, LTX and Mochi run both passes of guidance as one batch, Mochi with a time that rises; HunyuanVideo 1.5 and
Motif-Video name passes as their guiders do; Kandinsky 5 tells nothing, and writes each step's latents over the last's.
Helios and Wan-Animate make a video of several loops. Of MiniMax-H3 diffusers has no pipeline but modular blocks, and
Kandinsky 6's upscaler needs flex attention, which takes seconds a pass on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image
from torch import nn

from dvdq_models import DvdqError, Recipe, load, quantize, save, trace
from dvdq_models.moving_shapes.wan import build_scheduler, build_vae
from dvdq_models.switching.hook import follow
from dvdq_reference.oracle import bounds

STEPS = 4
HEADS = {"num_attention_heads": 2, "attention_head_dim": 64}
TEXT = 32
"""Channels of the text; a prompt has four tokens."""


class Stub(nn.Module):
    """What a pipeline asks a part for that it does not run: an autoencoder or a vocoder before it decodes, a censor."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        vars(self).update(config)


def _text(
    mask: torch.dtype = torch.float32, attention: str = "prompt_attention_mask", width: int = TEXT
) -> dict[str, torch.Tensor]:
    arguments = {}
    for prefix in ("", "negative_"):
        arguments[f"{prefix}prompt_embeds"] = torch.randn(1, 4, width)
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
        Stub(latent_channels=4, temporal_compression_ratio=4, spatial_compression_ratio=16),
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
        Stub(z_dim=4, scale_factor_temporal=4, scale_factor_spatial=8),
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
    autoencoder = Stub(latent_channels=4, temporal_compression_ratio=4, spatial_compression_ratio=8)
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


def _latte() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.LatteTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=128,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=10,
        attention_bias=True,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=TEXT,
        video_length=2,
    )
    arguments = {**_text(attention=""), "negative_prompt": None, "video_length": 2}
    return diffusers.LattePipeline(None, None, None, transformer, diffusers.DDIMScheduler()), arguments


def _cosmos() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.CosmosTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        text_embed_dim=128,
        adaln_lora_dim=128,
        max_size=(4, 8, 8),
        extra_pos_embed_type=None,
        concat_padding_mask=False,
    )
    scheduler = diffusers.EDMEulerScheduler(final_sigmas_type="sigma_min")
    pipeline = diffusers.CosmosTextToWorldPipeline(None, None, transformer, None, scheduler, Stub())
    return pipeline, {**_text(attention="", width=128), "num_frames": 9}


def _kandinsky_6() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=TEXT,
        in_text_dim2=16,
        time_dim=128,
        model_dim=128,
        ff_dim=256,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(16, 24, 24),
        in_audio_dim=4,
        out_audio_dim=4,
        ca_rope=True,
        cross_gates=True,
        fix_modulation=True,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    arguments = {}
    for prefix in ("", "negative_"):
        arguments[f"{prefix}prompt_embeds"] = torch.randn(1, 4, TEXT)
        arguments[f"{prefix}pooled_prompt_embeds"] = torch.randn(1, 16)
    sound = Stub(sample_rate=44_100, latent_hop_length=1024)
    pipeline = diffusers.Kandinsky6TI2VAPipeline(transformer, None, None, None, None, None, scheduler, sound, Stub())
    return pipeline, {**arguments, "num_frames": 5}


def _ltx_2() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.LTX2VideoTransformer3DModel(
        **HEADS,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=128,
        audio_num_attention_heads=2,
        audio_attention_head_dim=64,
        audio_cross_attention_dim=128,
        num_layers=1,
        caption_channels=TEXT,
    )
    connector = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "num_learnable_registers": None}
    connectors = diffusers.pipelines.ltx2.LTX2TextConnectors(
        caption_channels=TEXT,
        text_proj_in_factor=1,
        **{f"{stream}_connector_{name}": value for stream in ("video", "audio") for name, value in connector.items()},
    )
    video = Stub(
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
        latents_mean=torch.zeros(4),
        latents_std=torch.ones(4),
        scaling_factor=1.0,
    )
    sound = Stub(
        mel_compression_ratio=4,
        temporal_compression_ratio=4,
        sample_rate=16000,
        mel_hop_length=160,
        mel_bins=64,
        latent_channels=8,
        latents_mean=torch.zeros(128),
        latents_std=torch.ones(128),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipeline = diffusers.LTX2Pipeline(scheduler, video, sound, None, None, connectors, transformer, None)
    return pipeline, {**_text(), "num_frames": 9}


_WAN = {**HEADS, "text_dim": TEXT, "freq_dim": 64, "ffn_dim": 256, "num_layers": 1}
PICTURE = Image.new("RGB", (64, 64), "red")


class Eye(nn.Module):
    """Stands for CLIP and its processor: features of a picture that are always the same."""

    dtype, device = torch.float32, torch.device("cpu")

    def forward(self, **_: Any) -> Any:
        """Anything as features."""
        return SimpleNamespace(hidden_states=[torch.ones(1, 257, 16)] * 2, to=lambda _: {})


def _helios() -> tuple[Any, dict[str, Any]]:
    """Two chunks: the second sees the first, so the first is decoded."""
    transformer = diffusers.HeliosTransformer3DModel(**_WAN, in_channels=8, out_channels=8, rope_dim=(24, 20, 20))
    scheduler = diffusers.HeliosScheduler(stages=1, stage_range=[0, 1])
    pipeline = diffusers.HeliosPipeline(None, None, build_vae().eval(), scheduler, transformer)
    return pipeline, {**_text(attention=""), "num_frames": 17, "num_latent_frames_per_chunk": 3}


def _chronoedit() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.ChronoEditTransformer3DModel(
        **_WAN, in_channels=20, out_channels=8, image_dim=16, added_kv_proj_dim=128, rope_max_seq_len=32
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    pipeline = diffusers.ChronoEditPipeline(None, None, Eye(), Eye(), transformer, build_vae().eval(), scheduler)
    return pipeline, {**_text(attention=""), "num_frames": 5, "image": PICTURE}


def _wan_animate() -> tuple[Any, dict[str, Any]]:
    """Two segments, each a loop of its own."""
    transformer = diffusers.WanAnimateTransformer3DModel(
        **_WAN,
        in_channels=20,
        latent_channels=8,
        out_channels=8,
        image_dim=16,
        added_kv_proj_dim=128,
        inject_face_latents_blocks=1,
        rope_max_seq_len=32,
        motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=2,
    )
    pipeline = diffusers.WanAnimatePipeline(
        None, None, build_vae().eval(), build_scheduler(), Eye(), Eye(), transformer
    )
    arguments = {
        **_text(attention=""),
        "image": PICTURE,
        "pose_video": [PICTURE] * 9,
        "face_video": [PICTURE.resize((16, 16))] * 9,
        "segment_frame_length": 5,
        "guidance_scale": 2.0,
    }
    return pipeline, arguments


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
    "latte": _latte,
    "cosmos": _cosmos,
    "kandinsky-6": _kandinsky_6,
    "ltx-2": _ltx_2,
    "helios": _helios,
    "chronoedit": _chronoedit,
    "wan-animate": _wan_animate,
}


# diffusers' own: casts of Mochi on a CPU, the schedulers of Allegro and Helios.
@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:__array")
@pytest.mark.parametrize("family", BUILD)
def test_a_step_is_one_decision_and_a_video_one_trace(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline, arguments = BUILD[family]()
    pipeline.set_progress_bar_config(disable=True)
    passes = []
    quantize(pipeline.transformer.eval(), Recipe.named("dvd-quant", "W4A6"))
    save(pipeline.transformer, tmp_path / "saved")

    def generate() -> torch.Tensor:
        """The latents of a video, whose trace is that of its last loop."""
        follow(pipeline)
        handle = pipeline.transformer.register_forward_pre_hook(lambda *_: passes.append(family))
        generator = torch.Generator().manual_seed(0)
        video = pipeline(
            **arguments, height=64, width=64, num_inference_steps=STEPS, output_type="latent", generator=generator
        )
        handle.remove()
        decisions = trace(pipeline.transformer)
        assert [decision.step for decision in decisions] == list(range(STEPS))
        assert [decision.distance is not None for decision in decisions] == [False] + [True] * (STEPS - 1)
        return torch.as_tensor(next(iter(video.values())))

    first = generate()
    assert torch.equal(generate(), first)
    pipeline.register_modules(transformer=load(tmp_path / "saved"))
    assert torch.equal(generate(), first)
    assert len(passes) % (3 * STEPS) == 0


@torch.no_grad()
def test_an_adapter_of_two_parts_goes_to_both_or_to_none() -> None:
    """LTX-2: some of an adapter is for the connectors of its text, which stay in full precision."""
    torch.manual_seed(0)
    pipeline, _ = _ltx_2()
    quantize(pipeline.transformer.eval(), Recipe.named("dvd-quant", "W4A6"))
    places = {
        "transformer": "transformer_blocks.0.attn1.to_q",
        "connectors": "video_connector.transformer_blocks.0.attn1.to_q",
    }
    layers = {part: getattr(pipeline, part).get_submodule(place) for part, place in places.items()}
    inputs = {part: torch.randn(3, layer.in_features) for part, layer in layers.items()}
    before = {part: layer(inputs[part]) for part, layer in layers.items()}
    adapter, added, allowed = {}, {}, {}
    for part, place in places.items():
        x, down, up = inputs[part], torch.randn(2, inputs[part].shape[1]), torch.randn(before[part].shape[1], 2)
        adapter |= {f"{part}.{place}.lora_A.weight": down, f"{part}.{place}.lora_B.weight": up}
        added[part] = x @ down.T @ up.T
        # Roundings of the two products, and of the sum.
        sizes = x.abs() @ down.abs().T @ up.abs().T + before[part].abs()
        allowed[part] = bounds.gamma(x.shape[1] + 4) * sizes
    nowhere = {key.replace("video_connector", "third_connector"): tensor for key, tensor in adapter.items()}
    with pytest.raises(
        DvdqError, match=r"connectors\.third_connector.*: expected a layer of the pipeline's connectors"
    ):
        pipeline.load_lora_weights(nowhere)
    assert not hasattr(pipeline.transformer, "peft_config")
    skipped = pipeline.load_lora_weights(nowhere, allow_skipping=True)
    assert skipped == tuple(key for key in nowhere if key.startswith("connectors"))
    pipeline.unload_lora_weights()
    assert pipeline.load_lora_weights(adapter) == ()
    for part, place in places.items():
        got = getattr(pipeline, part).get_submodule(place)(inputs[part])
        assert ((got - before[part] - added[part]).abs() <= allowed[part]).all()
