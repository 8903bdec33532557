"""Small transformers and pipelines that run in milliseconds, all seeded: Wan's, and HunyuanVideo's transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanPipeline, WanTransformer3DModel

from dvdq_models.moving_shapes.wan import (
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_vae,
)

TINY: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": 128,
    "freq_dim": 64,
    "ffn_dim": 384,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}
"""Widths 128 and 384 = 12 * 2^5: both take a Hadamard matrix and blocks of 128."""

TINY_HUNYUAN: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "mlp_ratio": 3.0,
    "patch_size": 2,
    "patch_size_t": 1,
    "text_embed_dim": 32,
    "pooled_projection_dim": 16,
    "rope_axes_dim": (16, 24, 24),
}
"""Widths 128, 384 and, where a single-stream block joins attention and MLP, 512."""


WAN_NAMES = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    (".scale_shift_table", ".modulation"),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("attn1", "self_attn"),
    ("attn2", "cross_attn"),
    (".to_out.0.", ".o."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    ("norm2", "norm_swapped"),
    ("norm3", "norm2"),
    ("norm_swapped", "norm3"),
)
"""diffusers' names to Wan's own: what its converter undoes."""


@pytest.fixture(scope="session")
def wan_name() -> Callable[[str], str]:
    """A name of diffusers as Wan's own."""

    def rename(name: str) -> str:
        if name == "scale_shift_table":
            return "head.modulation"
        if name.startswith("proj_out"):
            return name.replace("proj_out", "head.head")
        for ours, theirs in WAN_NAMES:
            name = name.replace(ours, theirs)
        return name

    return rename


@pytest.fixture
def hunyuan_tensors() -> dict[str, torch.Tensor]:
    """Names and proportions of Tencent's file; only the first dimension matters to the converter."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "img_in.proj.weight": (6, 2),
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": (12,),
        "txt_in.individual_token_refiner.blocks.0.self_attn_qkv.weight": (18, 2),
        "txt_in.t_embedder.mlp.0.weight": (6, 2),
        "double_blocks.0.img_attn_qkv.weight": (18, 2),
        "double_blocks.0.txt_attn_qkv.bias": (18,),
        "double_blocks.0.img_mlp.fc1.weight": (24, 2),
        "single_blocks.0.linear1.weight": (3 * 3072 + 40, 2),
        "single_blocks.0.linear1.bias": (3 * 3072 + 40,),
        "single_blocks.0.linear2.weight": (6, 10),
        "single_blocks.0.modulation.linear.weight": (18, 2),
        "final_layer.adaLN_modulation.1.weight": (12, 2),
        "final_layer.linear.bias": (4,),
    }
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def call() -> Callable[..., torch.Tensor]:
    """One forward pass of a transformer on seeded inputs."""

    def run(transformer: Any, seed: int = 0, mode: Callable[[], Any] = torch.inference_mode) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        with mode():
            output = transformer(
                hidden_states=torch.randn(1, 8, 2, 8, 8, generator=generator),
                timestep=torch.tensor([500]),
                encoder_hidden_states=torch.randn(1, 4, 128, generator=generator),
                return_dict=False,
            )[0]
        assert isinstance(output, torch.Tensor)
        return output

    return run


@pytest.fixture(scope="session")
def call_hunyuan() -> Callable[..., torch.Tensor]:
    """One forward pass of a HunyuanVideo transformer on seeded inputs, the last two of six text tokens masked."""

    def run(transformer: Any, seed: int = 0, mode: Callable[[], Any] = torch.inference_mode) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        with mode():
            output = transformer(
                hidden_states=torch.randn(1, 8, 2, 8, 8, generator=generator),
                timestep=torch.tensor([500]),
                encoder_hidden_states=torch.randn(1, 6, 32, generator=generator),
                encoder_attention_mask=torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]]),
                pooled_projections=torch.randn(1, 16, generator=generator),
                guidance=torch.tensor([6000.0]),
                return_dict=False,
            )[0]
        assert isinstance(output, torch.Tensor)
        return output

    return run


@pytest.fixture(scope="session")
def generate() -> Callable[..., torch.Tensor]:
    """The latents of a short video by a pipeline."""

    def run(pipeline: Any, steps: int = 6, guidance: float = 4.0, prompts: int = 1) -> torch.Tensor:
        latents = pipeline(
            prompt=["a red circle moves left quickly over a gray background"] * prompts,
            negative_prompt=[""] * prompts,
            height=16,
            width=16,
            num_frames=5,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).frames
        assert isinstance(latents, torch.Tensor)
        return latents

    return run


@pytest.fixture(scope="session")
def _transformer() -> Any:
    torch.manual_seed(0)
    return WanTransformer3DModel(**TINY).eval()


@pytest.fixture
def transformer(_transformer: Any) -> Any:
    """A fresh copy of one random transformer."""
    return copy.deepcopy(_transformer)


@pytest.fixture(scope="session")
def _hunyuan_transformer() -> Any:
    torch.manual_seed(0)
    return HunyuanVideoTransformer3DModel(**TINY_HUNYUAN).eval()


@pytest.fixture
def hunyuan_transformer(_hunyuan_transformer: Any) -> Any:
    """A fresh copy of one random HunyuanVideo transformer."""
    return copy.deepcopy(_hunyuan_transformer)


@pytest.fixture
def pipeline(transformer: Any) -> Any:
    """A random text-to-video pipeline around ``transformer``."""
    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        vae=build_vae().eval(),
        transformer=transformer,
        scheduler=build_scheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipeline_folder(pipeline: Any, tmp_path: Path) -> Path:
    """The pipeline as a folder on disk."""
    pipeline.save_pretrained(str(tmp_path / "full"))
    return tmp_path / "full"
