"""LoRA as trainers write it, through a pipeline: applied as a whole, or refused by the name that the file has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from torch import nn

from dvdq_models import DvdqError, Recipe, quantize
from dvdq_models.layers.linear import QuantizedLinear

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")

RECIPE = Recipe.named("minmax", "W4A8")
Q = "diffusion_model.blocks.0.self_attn.q"
Adapter = dict[str, torch.Tensor]


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) / 8


def _plain(name: str = Q) -> Adapter:
    return {f"{name}.lora_down.weight": _random(4, 128), f"{name}.lora_up.weight": _random(128, 4)}


@pytest.fixture
def pipeline(transformer: Any) -> Any:
    return WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=quantize(transformer, RECIPE)
    )


DROPPED: dict[str, Adapter] = {
    "norm's difference": {"diffusion_model.blocks.0.self_attn.norm_q.diff": _random(128)},
    "norm's bias": {"diffusion_model.blocks.0.norm3.diff_b": _random(128)},
    "modulation's difference": {"diffusion_model.blocks.0.diff_m": _random(1, 6, 128)},
    "patch embedding's difference": {"diffusion_model.patch_embedding.diff": _random(128, 8, 1, 2, 2)},
    "lone bias": {"diffusion_model.time_projection.1.diff_b": _random(768)},
    "another lone bias": {"diffusion_model.blocks.1.self_attn.k.diff_b": _random(128)},
    "DoRA": {f"{Q}.dora_scale": _random(128, 1)},
    "alpha of nothing": {"diffusion_model.blocks.1.ffn.2.alpha": torch.tensor(4.0)},
    "image's keys": {
        k: v for part in ("k_img", "v_img") for k, v in _plain(f"diffusion_model.blocks.0.cross_attn.{part}").items()
    },
    "text encoder": {"text_encoder.layers.0.q.lora_down.weight": _random(4, 128)},
}


@pytest.mark.parametrize("what", DROPPED)
def test_what_diffusers_would_drop_is_refused(what: str, pipeline: Any, call: Callable[..., torch.Tensor]) -> None:
    before = call(pipeline.transformer)
    with pytest.raises(DvdqError, match="load LoRA"):
        pipeline.load_lora_weights(_plain() | DROPPED[what], adapter_name="a")
    assert torch.equal(call(pipeline.transformer), before)
    assert not hasattr(pipeline.transformer, "peft_config") or "a" not in pipeline.transformer.peft_config


@pytest.mark.parametrize("what", ["norm's difference", "patch embedding's difference", "lone bias", "image's keys"])
def test_what_is_skipped_on_purpose_is_listed(
    what: str, pipeline: Any, call: Callable[..., torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    assert pipeline.load_lora_weights(_plain(), adapter_name="plain") == ()
    expected = call(pipeline.transformer)
    pipeline.unload_lora_weights()
    skipped = pipeline.load_lora_weights(_plain() | DROPPED[what], adapter_name="a", allow_skipping=True)
    assert sorted(skipped) == sorted(DROPPED[what])
    assert torch.equal(call(pipeline.transformer), expected)


def test_nothing_of_an_adapter_may_not_be_skipped(pipeline: Any) -> None:
    with pytest.raises(DvdqError, match="load LoRA"):
        pipeline.load_lora_weights(DROPPED["norm's difference"], allow_skipping=True)


def _older(state: Adapter) -> Adapter:
    return {k.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): v for k, v in state.items()}


OURS = {
    f"transformer.blocks.0.attn1.to_q.lora_{part}.weight": tensor
    for part, tensor in zip("AB", _plain().values(), strict=True)
}
FORMATS: dict[str, Adapter] = {
    "PEFT": OURS,
    "before PEFT": _older(OURS),
    "Wan's own": _plain(),
    "Wan's own, PEFT": {k.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): v for k, v in _plain().items()},
    "alpha": _plain() | {f"{Q}.alpha": torch.tensor(4.0)},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("by", ["dictionary", "file"])
def test_every_format_that_full_precision_takes_is_the_same_adapter(
    name: str, by: str, pipeline: Any, tmp_path: Path
) -> None:
    source: Any = dict(FORMATS[name])
    if by == "file":
        save_file(source, tmp_path / "lora.safetensors")
        source = tmp_path / "lora.safetensors"
    pipeline.load_lora_weights(source, adapter_name="a")
    layer = pipeline.transformer.blocks[0].attn1.to_q
    for part, tensor in zip((layer.lora_A, layer.lora_B), _plain().values(), strict=True):
        assert torch.equal(part["a"].weight, tensor)
    assert layer.scaling["a"] == 1.0


def test_a_dictionary_is_not_changed_by_loading_it(pipeline: Any) -> None:
    """diffusers multiplies by alpha in place: a second loading would multiply once more."""
    cross = "diffusion_model.blocks.0.cross_attn.q"
    state = _plain(cross) | {f"{cross}.alpha": torch.tensor(1.0)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    pipeline.load_lora_weights(state, adapter_name="a")
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_an_adapter_is_saved_and_loaded_again(pipeline: Any, call: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    transformer, without = pipeline.transformer, call(pipeline.transformer)
    pipeline.load_lora_weights(dict(OURS), adapter_name="a")
    adapted = call(transformer)
    transformer.save_lora_adapter(tmp_path / "new" / "lora", adapter_name="a")
    pipeline.unload_lora_weights()
    assert torch.equal(call(transformer), without)
    transformer.load_lora_adapter(tmp_path / "new" / "lora", prefix=None, adapter_name="b")
    assert torch.equal(call(transformer), adapted)
    (file,) = (tmp_path / "new" / "lora").iterdir()
    assert load_file(file).keys() == {name.removeprefix("transformer.") for name in OURS}
    for arguments, message in (
        ({"adapter_name": "none"}, r"'none': expected one of \['b'\]"),
        ({"adapter_name": "b", "safe_serialization": False}, "safe_serialization: expected True"),
    ):
        with pytest.raises(DvdqError, match=message):
            transformer.save_lora_adapter(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/lora.safetensors", "expected an adapter"),
        ({"diffusion_model.time_embedding.0.diff_b": _random(128)}, "expected an adapter"),
        ({"diffusion_model.time_embedding.0.diff_b": _random(128)} | _plain(), "an adapter that diffusers can convert"),
        ({f"{Q}.lora_down.weight": "text"}, "expected tensors, got str"),
        ({}, "expected an adapter"),
    ],
)
def test_what_is_no_adapter_is_one_line(source: Any, message: str, pipeline: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DvdqError, match=message):
        pipeline.load_lora_weights(source)


def test_a_model_in_full_precision_loads_as_before(transformer: Any, call: Callable[..., torch.Tensor]) -> None:
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=transformer)
    other = copy.deepcopy(pipe.transformer)
    pipe.load_lora_weights(_plain() | DROPPED["norm's difference"], adapter_name="a")
    linear = other.blocks[0].attn1.to_q
    linear.weight.data += _plain()[f"{Q}.lora_up.weight"] @ _plain()[f"{Q}.lora_down.weight"]
    assert not any(isinstance(module, QuantizedLinear) for module in pipe.transformer.modules())
    assert isinstance(linear, nn.Linear)
    assert torch.allclose(call(pipe.transformer), call(other), atol=1e-4)
