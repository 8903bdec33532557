"""docs/diffusers.md lists every public method of a model and a pipeline; what it says of each is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import nn

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, quantize, trace
from dvdq_models.layers.linear import QuantizedLinear

pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:Already unmerged:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*slicing.*:FutureWarning"),
]

PAGE = Path(__file__).parents[3] / "docs" / "diffusers.md"
CPU = torch.device("cpu")
LORA = {"A": torch.full((4, 128), 0.1), "B": torch.full((128, 4), 0.1)}
ADAPTER = {f"transformer.blocks.0.attn1.to_q.lora_{part}.weight": tensor for part, tensor in LORA.items()}
Table = dict[str, list[str]]


def _table(of: str) -> Table:
    """The names in each row of the table whose heading says ``of``, by what the row says."""
    text = PAGE.read_text(encoding="utf-8")
    rows = text[text.index(f"| of a {of} |") :].partition("\n\n")[0].splitlines()[2:]
    return {row.split("|")[1].strip(): re.findall(r"`(\w+)`", row.split("|")[2]) for row in rows}


MODEL, PIPELINE = _table("transformer"), _table("pipeline")


def _public(subject: type, base: type) -> set[str]:
    return {name for name in dir(subject) if not name.startswith("_") and name not in dir(base)}


@pytest.mark.parametrize(
    ("table", "classes", "base"),
    [
        (MODEL, (WanTransformer3DModel, HunyuanVideoTransformer3DModel), nn.Module),
        (PIPELINE, (WanPipeline, HunyuanVideoPipeline), object),
    ],
)
def test_the_page_lists_every_public_method_once(table: Table, classes: tuple[type, ...], base: type) -> None:
    listed = [name for row in table.values() for name in row]
    assert len(listed) == len(set(listed))
    assert set(listed) == set().union(*(_public(subject, base) for subject in classes))


def _adapted(model: Any) -> Any:
    model.load_lora_adapter(dict(ADAPTER), adapter_name="a")
    return model


def _first_block_cache(model: Any) -> None:
    model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with model.cache_context("cond"):
        assert model.is_cache_enabled
    model.disable_cache()
    assert not model.is_cache_enabled


def _adapters(model: Any) -> None:
    model.enable_lora_hotswap(target_rank=8)
    _adapted(model).set_adapters(["a"], [0.5])
    model.set_adapter("a")
    assert model.active_adapters() == ["a"]
    for off, on in ((model.disable_lora, model.enable_lora), (model.disable_adapters, model.enable_adapters)):
        off()
        on()
    model.unfuse_lora()
    model.delete_adapters("a")
    _adapted(model).unload_lora()


def _attention(model: Any) -> None:
    model.set_attn_processor(model.attn_processors)
    model.set_attention_backend("native")
    model.reset_attention_backend()
    model.unfuse_qkv_projections()


def _questions(model: Any) -> None:
    assert model.num_parameters() == sum(parameter.numel() for parameter in model.parameters())
    assert model.get_memory_footprint() >= sum(p.numel() * p.element_size() for p in model.parameters())
    assert (model.dtype, model.device.type, model.is_gradient_checkpointing) == (torch.float32, "cpu", False)
    model.enable_gradient_checkpointing()
    model.disable_gradient_checkpointing()


def _configuration(model: Any, folder: Path) -> None:
    model.register_to_config(mine=1)
    model.save_config(folder)
    model.to_json_file(folder / "again.json")
    text = model.to_json_string()
    assert DVDQuantConfig.from_dict(model.load_config(folder)["quantization_config"]).recipe.name == "minmax"
    assert text == (folder / "again.json").read_text() == (folder / "config.json").read_text()
    assert model.config.mine == 1


def test_the_methods_of_a_model(transformer: Any, call: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    model = quantize(transformer, Recipe.named("minmax", "W4A8"))
    expected, codes = call(model), model.blocks[0].attn1.to_q.qweight.clone()
    for use in (_first_block_cache, _adapters, _attention, _questions, lambda m: _configuration(m, tmp_path)):
        use(model)
        assert torch.equal(call(model), expected)
        assert torch.equal(model.blocks[0].attn1.to_q.qweight, codes)
    model.save_pretrained(tmp_path / "q")
    for again in (load(tmp_path / "q"), WanTransformer3DModel.from_pretrained(tmp_path / "q")):
        assert torch.equal(call(again), expected)
    model.compile_repeated_blocks(backend="eager")
    assert torch.equal(call(model), expected)


@pytest.mark.parametrize("name", MODEL["refused by name"])
def test_what_a_model_refuses(name: str, transformer: Any) -> None:
    model = quantize(transformer, Recipe.named("minmax", "W4A8"))
    with pytest.raises(DvdqError, match=f"{name}: WanTransformer3DModel: expected"):
        getattr(model, name)()
    assert isinstance(model.blocks[0].attn1.to_q, QuantizedLinear)


def _reads(pipe: Any) -> None:
    for name in ("components", "config", "device", "dtype", "hf_device_map", "name_or_path", "lora_scale"):
        getattr(pipe, name)
    for name in ("fused_loras", "num_fused_loras", "num_timesteps", "guidance_scale", "attention_kwargs", "interrupt"):
        getattr(pipe, name)
    for name in ("current_timestep", "do_classifier_free_guidance"):
        getattr(pipe, name)


def _pipeline_adapters(pipe: Any, folder: Path) -> None:
    pipe.enable_lora_hotswap(target_rank=8)
    pipe.load_lora_into_transformer(dict(ADAPTER), pipe.transformer, adapter_name="a")
    pipe.set_adapters(["a"], [0.5])
    assert pipe.get_active_adapters() == ["a"]
    assert pipe.get_list_adapters() == {"transformer": ["a"]}
    pipe.disable_lora()
    pipe.enable_lora()
    pipe.set_lora_device(["a"], CPU)
    pipe.unfuse_lora()
    pipe.delete_adapters("a")
    layers = {name.removeprefix("transformer."): tensor for name, tensor in ADAPTER.items()}
    pipe.save_lora_weights(folder, transformer_lora_layers=layers)
    pipe.load_lora_weights(folder, adapter_name="b")
    pipe.unload_lora_weights()


def _pipeline_settings(pipe: Any, folder: Path) -> None:
    pipe.set_progress_bar_config(disable=True)
    pipe.progress_bar(total=1).close()
    pipe.enable_attention_slicing()
    pipe.disable_attention_slicing()
    pipe.set_attention_slice(None)
    pipe.register_modules(transformer=pipe.transformer)
    pipe.register_to_config(boundary_ratio=None)
    pipe.save_config(folder)
    pipe.to_json_file(folder / "again.json")
    assert "WanPipeline" in pipe.to_json_string()
    pipe.remove_all_hooks()
    pipe.reset_device_map()
    pipe.maybe_free_model_hooks()
    pipe.to("cpu")


def test_the_methods_of_a_pipeline(pipeline: Any, generate: Callable[..., torch.Tensor], tmp_path: Path) -> None:
    quantize(pipeline.transformer, Recipe.named("minmax", "W4A8"))
    expected = generate(pipeline, 1)
    for use in (_reads, lambda p: _pipeline_adapters(p, tmp_path), lambda p: _pipeline_settings(p, tmp_path)):
        use(pipeline)
        assert torch.equal(generate(pipeline, 1), expected)
    made = WanPipeline.from_pipe(pipeline)
    assert torch.equal(generate(made, 1), expected)
    with pytest.raises(DvdqError, match="fuse_lora: WanTransformer3DModel: expected LoRA left beside"):
        pipeline.fuse_lora()
    pipeline.save_pretrained(tmp_path / "pipe")
    pipeline.enable_group_offload(CPU, offload_type="leaf_level")
    assert torch.equal(generate(pipeline, 1), expected)
    again = WanPipeline.from_pretrained(tmp_path / "pipe")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(generate(again, 1), expected)
    assert len(trace(again.transformer)) == 1
