"""Every class of every family at a tiny size: quantized, saved, loaded, streamed and compiled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import CacheMixin
from torch._dynamo.testing import CompileCounter

from dvdq_models import DvdqError, Recipe, load, quantize, save
from dvdq_models.families import classes, families, family_of
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.families.family import Caching
from dvdq_models.inspecting.memory import forward_peak
from dvdq_models.inspecting.sizes import describe
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.streaming import quantize_checkpoint
from dvdq_models.teacache import Coefficients, enable_teacache, teacache_trace
from dvdq_reference.oracle import bounds


@dataclass(frozen=True)
class Tiny:
    """A class and how it is made small: widths 128 and its multiples, which take a Hadamard matrix and blocks of 128.

    Attributes:
        config: arguments of the class.
        latent: frames, height and width of the latents.
        text_tokens: of the prompt.
    """

    config: dict[str, Any]
    latent: tuple[int, int, int] = (2, 4, 4)
    text_tokens: int = 4


_WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 256,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
_HUNYUAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "num_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 32,
    "rope_axes_dim": (16, 24, 24),
}
_SINGLE = {"num_single_layers": 1, "num_refiner_layers": 1, "pooled_projection_dim": 16}
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 64}

TINY: dict[str, Tiny] = {
    "WanTransformer3DModel": Tiny(_WAN | {"image_dim": 32, "added_kv_proj_dim": 128}),
    "WanVACETransformer3DModel": Tiny(_WAN | {"vace_layers": [0], "vace_in_channels": 8}),
    "SkyReelsV2Transformer3DModel": Tiny(_WAN | {"inject_sample_info": True}),
    "ChronoEditTransformer3DModel": Tiny(_WAN),
    "HunyuanVideoTransformer3DModel": Tiny(_HUNYUAN | _SINGLE),
    "HunyuanVideoFramepackTransformer3DModel": Tiny(
        _HUNYUAN | _SINGLE | {"image_proj_dim": 16, "has_image_proj": True, "has_clean_x_embedder": True}
    ),
    "HunyuanVideo15Transformer3DModel": Tiny(
        _HUNYUAN | {"num_refiner_layers": 1, "text_embed_2_dim": 16, "image_embed_dim": 16, "use_meanflow": True}
    ),
    "WanAnimateTransformer3DModel": Tiny(
        _WAN
        | {
            "image_dim": 32,
            "inject_face_latents_blocks": 2,
            "motion_encoder_channel_sizes": {"4": 16, "8": 16, "16": 16},
            "motion_encoder_size": 16,
            "motion_style_dim": 8,
            "motion_dim": 4,
            "motion_encoder_dim": 16,
            "face_encoder_hidden_dim": 16,
            "face_encoder_num_heads": 2,
        },
        latent=(3, 4, 4),
    ),
    "LTXVideoTransformer3DModel": Tiny(
        _HEADS
        | {"in_channels": 8, "out_channels": 8, "cross_attention_dim": 128, "num_layers": 1, "caption_channels": 32}
    ),
    "LTX2VideoTransformer3DModel": Tiny(
        _HEADS
        | {
            "in_channels": 8,
            "out_channels": 8,
            "cross_attention_dim": 128,
            "audio_in_channels": 8,
            "audio_out_channels": 8,
            "audio_num_attention_heads": 2,
            "audio_attention_head_dim": 64,
            "audio_cross_attention_dim": 128,
            "num_layers": 1,
            "caption_channels": 32,
            "gated_attn": True,
            "audio_gated_attn": True,
            "cross_attn_mod": True,
            "audio_cross_attn_mod": True,
        }
    ),
    "MiniMaxH3Transformer3DModel": Tiny(
        _HEADS
        | {
            "hidden_size": 128,
            "num_layers": 1,
            "num_refiner_layers": 1,
            "ffn_dim": 256,
            "in_channels": 4,
            "audio_in_channels": 4,
            "text_dim": 32,
            "freq_dim": 32,
            "time_embed_hidden_dim": 64,
            "time_embed_dim": 128,
            "rope_freq_dim": 8,
        }
    ),
    "HeliosTransformer3DModel": Tiny(
        {key: value for key, value in _WAN.items() if key != "rope_max_seq_len"} | {"rope_dim": (24, 20, 20)}
    ),
    "AnyFlowTransformer3DModel": Tiny(_WAN),
    "AnyFlowFARTransformer3DModel": Tiny(_WAN | {"chunk_partition": (1, 1)}),
    "MotifVideoTransformer3DModel": Tiny(
        _HUNYUAN
        | {"num_single_layers": 2, "num_decoder_layers": 1, "image_embed_dim": 16}
        | {"enable_text_cross_attention_dual": True, "enable_text_cross_attention_single": True}
    ),
    "CogVideoXTransformer3DModel": Tiny(
        _HEADS
        | {"time_embed_dim": 128, "text_embed_dim": 32, "num_layers": 1, "patch_size_t": 2, "ofs_embed_dim": 128}
        | {"use_rotary_positional_embeddings": True, "patch_bias": False, "in_channels": 4, "out_channels": 4}
    ),
    "MochiTransformer3DModel": Tiny(
        {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 2, "pooled_projection_dim": 384}
        | {"in_channels": 4, "text_embed_dim": 32, "time_embed_dim": 64}
    ),
    "Kandinsky5Transformer3DModel": Tiny(
        {"in_visual_dim": 4, "in_text_dim": 32, "in_text_dim2": 16, "time_dim": 128, "model_dim": 128, "ff_dim": 256}
        | {"num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (16, 24, 24), "visual_cond": True}
    ),
    "ConsisIDTransformer3DModel": Tiny(
        {"num_attention_heads": 6, "attention_head_dim": 64, "time_embed_dim": 128, "text_embed_dim": 32}
        | {"num_layers": 1, "in_channels": 4, "out_channels": 4, "use_rotary_positional_embeddings": True}
        | {"is_train_face": True, "cross_attn_interval": 1, "cross_attn_dim_head": 64, "cross_attn_num_heads": 2}
        | {"LFE_id_dim": 16, "LFE_vit_dim": 16, "LFE_depth": 2, "LFE_dim_head": 8, "LFE_num_heads": 2}
        | {"LFE_num_scale": 2, "LFE_output_dim": 256}
    ),
    "Kandinsky6Transformer3DModel": Tiny(
        {"in_visual_dim": 4, "in_text_dim": 32, "in_text_dim2": 16, "time_dim": 128, "model_dim": 128, "ff_dim": 256}
        | {"num_text_blocks": 1, "num_visual_blocks": 1, "axes_dims": (16, 24, 24), "in_audio_dim": 4}
        | {"ca_rope": True, "cross_gates": True, "fix_modulation": True}
    ),
    "Kandinsky6SRTransformer3DModel": Tiny(
        {"in_visual_dim": 4, "out_visual_dim": 4, "time_dim": 128, "model_dim": 128, "ff_dim": 256}
        | {"num_visual_blocks": 1},
        latent=(2, 8, 8),
    ),
    "AllegroTransformer3DModel": Tiny(
        {"num_attention_heads": 4, "attention_head_dim": 96, "num_layers": 1, "cross_attention_dim": 384}
        | {"caption_channels": 32, "sample_height": 4, "sample_width": 4, "sample_frames": 2}
    ),
    "CosmosTransformer3DModel": Tiny(
        _HEADS
        | {"in_channels": 4, "out_channels": 4, "num_layers": 1, "text_embed_dim": 128, "adaln_lora_dim": 128}
        | {"max_size": (4, 8, 8), "extra_pos_embed_type": None, "concat_padding_mask": False}
    ),
    "EasyAnimateTransformer3DModel": Tiny(
        _HEADS
        | {"in_channels": 4, "out_channels": 4, "patch_size": 2, "sample_width": 4, "sample_height": 4, "num_layers": 2}
        | {"mmdit_layers": 1, "time_embed_dim": 128, "text_embed_dim": 32}
    ),
    "LatteTransformer3DModel": Tiny(
        _HEADS
        | {"in_channels": 4, "out_channels": 4, "num_layers": 1, "cross_attention_dim": 128, "sample_size": 4}
        | {"patch_size": 2, "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 10, "attention_bias": True}
        | {"norm_type": "ada_norm_single", "norm_elementwise_affine": False, "caption_channels": 32, "video_length": 2}
    ),
}


def holds_codes(block: torch.nn.Module) -> bool:
    """Whether a block has quantized layers."""
    return any(isinstance(layer, QuantizedLinear) for layer in block.modules())


def build(name: str) -> Any:
    """A seeded model of a class; what starts at zero, such as a modulation, is filled, or blocks would do nothing."""
    torch.manual_seed(0)
    transformer = getattr(diffusers, name)(**TINY[name].config).eval()
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer


def run(transformer: Any, name: str) -> torch.Tensor:
    """What one forward pass gives on seeded inputs, its parts joined."""
    tiny = TINY[name]
    inputs = example_inputs(
        transformer, tiny.latent, text_tokens=tiny.text_tokens, dtype=torch.float32, device="cpu", seed=1
    )
    with torch.inference_mode():
        outputs = transformer(**inputs, return_dict=False)
    return torch.cat([part.flatten() for part in outputs if isinstance(part, torch.Tensor)])


RECIPE = Recipe.named("dvd-quant", "W4A8")


def test_each_class_is_here() -> None:
    assert set(TINY) == set(classes())


def test_each_pipeline_names_a_class_that_is_installed() -> None:
    assert all(hasattr(diffusers, name) for name in classes())


# diffusers' own: Mochi's casts on a CPU, and flex attention without a compiler.
@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:flex_attention called without")
@pytest.mark.parametrize("name", TINY)
def test_a_model_comes_back_bit_for_bit_and_streams_to_the_same_files(name: str, tmp_path: Path) -> None:
    transformer = build(name)
    transformer.save_pretrained(tmp_path / "full")
    full = run(transformer, name)
    treatments = Counter(family_of(transformer).treatments(transformer).values())
    quantize(transformer, RECIPE)
    layers = Counter(
        "weight-only" if module.activation is None else "quantize"
        for module in transformer.modules()
        if isinstance(module, QuantizedLinear)
    )
    assert layers == Counter({kind: count for kind, count in treatments.items() if kind != "keep"})
    quantized = run(transformer, name)
    error = float((quantized - full).norm() / full.norm())
    assert 0.0 < error < 0.5  # of a random model; a rotation or scale in the wrong place gives more than 1
    save(transformer, tmp_path / "saved")
    assert torch.equal(run(load(tmp_path / "saved"), name), quantized)
    quantize_checkpoint(tmp_path / "full", tmp_path / "streamed", RECIPE)
    weights = [(tmp_path / folder / "SHA256SUMS").read_text() for folder in ("saved", "streamed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", [name for name in TINY if hasattr(getattr(diffusers, name), "load_lora_adapter")])
def test_an_adapter_adds_its_product_to_a_quantized_layer(name: str) -> None:
    transformer = quantize(build(name), RECIPE)
    target = next(
        key for key, m in transformer.named_modules() if isinstance(m, QuantizedLinear) and m.activation is not None
    )
    layer = transformer.get_submodule(target)
    x, generator = torch.randn(3, layer.in_features), torch.Generator().manual_seed(0)
    down = torch.randn(2, layer.in_features, generator=generator)
    up = torch.randn(layer.out_features, 2, generator=generator)
    before = layer(x)
    adapter = {f"{target}.lora_A.weight": down, f"{target}.lora_B.weight": up}
    transformer.load_lora_adapter(adapter, prefix=None)
    added = x @ down.T @ up.T
    # Roundings of the two products, and of the sum.
    allowed = bounds.gamma(layer.in_features + 4) * (x.abs() @ down.abs().T @ up.abs().T + before.abs())
    assert ((transformer.get_submodule(target)(x) - before - added).abs() <= allowed).all()


SAME_BLOCKS = {
    "WanTransformer3DModel": "test_compile",
    "HunyuanVideoTransformer3DModel": "test_compile",
    "HunyuanVideoFramepackTransformer3DModel": "HunyuanVideoTransformer3DModel",
    "ChronoEditTransformer3DModel": "WanTransformer3DModel",
    "SkyReelsV2Transformer3DModel": "WanTransformer3DModel",
    "HeliosTransformer3DModel": "WanTransformer3DModel",
    "AnyFlowTransformer3DModel": "WanTransformer3DModel",
    "ConsisIDTransformer3DModel": "CogVideoXTransformer3DModel",
}
"""Classes with the blocks of another, or with its blocks but for names, and where those are compiled."""


@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:flex_attention called without")
@pytest.mark.parametrize("name", [name for name in TINY if name not in SAME_BLOCKS])
def test_blocks_compile_without_a_break_to_the_same_bits(name: str) -> None:
    transformer, graphs = quantize(build(name), RECIPE), CompileCounter()
    expected = run(transformer, name)
    torch._dynamo.reset()
    lists = [part for part in transformer.children() if isinstance(part, torch.nn.ModuleList)]
    blocks = {type(block): block for part in lists for block in part if holds_codes(block)}
    for block in blocks.values():
        block.compile(fullgraph=True, backend=graphs)
    assert torch.equal(run(transformer, name), expected)
    assert graphs.frame_count == len(blocks)
    torch._dynamo.reset()


TEACACHE = {name: caching for family in families() for name, caching in family.teacache.items()}


def test_each_class_has_teacache_or_a_reason() -> None:
    assert set(TEACACHE) == set(classes())
    for name, caching in TEACACHE.items():
        if isinstance(caching, str):
            with pytest.raises(DvdqError, match=f"got {name}: {caching}"):
                enable_teacache(build(name), 0.1)


@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:flex_attention called without")
@pytest.mark.parametrize("name", [name for name, caching in TEACACHE.items() if isinstance(caching, Caching)])
def test_a_reused_pass_hands_on_what_all_blocks_added(name: str) -> None:
    """Three steps over the same inputs: the one in between computes no block, and gives what they would give."""
    caching, transformer = TEACACHE[name], build(name)
    assert isinstance(caching, Caching)
    blocks = [block for part in caching.blocks for block in getattr(transformer, part)]
    signal = next(iter(caching.signals))
    coefficients = Coefficients("line", (0.0, 0.0, 0.0, 1.0, 0.0), signal)
    enable_teacache(transformer, 1e9, coefficients=coefficients)
    ran: list[str] = []
    *_, last = (module for module in blocks[0].modules() if isinstance(module, torch.nn.Linear))
    last.register_forward_hook(lambda *_: ran.append(signal))
    outputs = []
    for step in range(3):
        with CacheMixin.cache_context(transformer, "cond", step_index=step, num_inference_steps=3):
            outputs.append(run(transformer, name))
    trace = teacache_trace(transformer)
    assert [decision.reused for decision in trace] == [False, True, False]
    assert len(ran) == 2
    assert trace[1].distance == 0.0
    assert torch.equal(outputs[2], outputs[0])
    # x + (y - x) is y up to two roundings; the norm and the linear behind it make far fewer than a thousand of them.
    allowed = 1000 * torch.finfo(torch.float32).eps * float(outputs[0].norm())
    assert float((outputs[1] - outputs[0]).norm()) <= allowed


STORES_SCORES = ("AnyFlowFARTransformer3DModel", "Kandinsky6SRTransformer3DModel")
"""Flex attention does, on a CPU."""
LIST_OF_NUMBERS = {"SkyReelsV2Transformer3DModel": 8}
"""Bytes of a list that becomes a tensor on its way to a device."""


@pytest.mark.filterwarnings("ignore:In CPU autocast", "ignore:flex_attention called without")
@pytest.mark.parametrize("name", TINY)
def test_a_pass_needs_on_the_meta_device_what_it_needs_on_a_cpu(name: str) -> None:
    transformer, tiny = build(name), TINY[name]
    assert describe(transformer, RECIPE).family == family_of(transformer).name

    def peak(device: str) -> int:
        inputs = example_inputs(
            transformer, tiny.latent, text_tokens=tiny.text_tokens, dtype=torch.float32, device=device
        )
        return forward_peak(transformer.to(device), inputs)

    least = prod(tiny.latent) * 4 if name in STORES_SCORES else peak("cpu") - LIST_OF_NUMBERS.get(name, 0)
    counted = peak("meta")
    assert counted > least if name in STORES_SCORES else counted == least


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="diffusers has what it needs")
def test_a_pass_that_needs_torchvision_says_so() -> None:
    tiny = TINY["CosmosTransformer3DModel"]
    with torch.device("meta"):
        transformer = diffusers.CosmosTransformer3DModel(**tiny.config | {"concat_padding_mask": True})
    with pytest.raises(DvdqError, match="expected what diffusers imports where it is installed, such as torchvision"):
        forward_peak(transformer, example_inputs(transformer, tiny.latent, text_tokens=4, dtype=torch.float32))
