"""LoRA beside quantized layers adds what it adds to the full-precision model, through diffusers' own calls."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from dvdq_kernels.registry import forget, operators
from dvdq_models import DvdqError, Recipe, load, quantize, save, trace
from dvdq_models.inspecting.sizes import describe
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.lora.layer import LoraQuantizedLinear
from dvdq_reference.spec.recipe import BitSchedule

# PEFT says so of every second adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")

RANK = 4
RECIPE = Recipe.named("dvd-quant", "W4A8")
Adapter = dict[str, torch.Tensor]


class Pair(NamedTuple):
    """One model in full precision and quantized, and how to run either."""

    full: Any
    quantized: Any
    call: Callable[..., torch.Tensor]

    def again(self, dtype: torch.dtype = torch.float32) -> Pair:
        """Both once more, of ``dtype``: a copy of a quantized model would run the modules that its hook knows."""
        full = copy.deepcopy(self.full).to(dtype)
        return Pair(full, quantize(copy.deepcopy(full), RECIPE), self.call)


@pytest.fixture(params=["wan", "hunyuan"])
def pair(request: pytest.FixtureRequest) -> Pair:
    name, call = {"wan": ("transformer", "call"), "hunyuan": ("hunyuan_transformer", "call_hunyuan")}[request.param]
    full = request.getfixturevalue(name)
    return Pair(full, quantize(copy.deepcopy(full), RECIPE), request.getfixturevalue(call))


def _linears(model: nn.Module) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | QuantizedLinear)}


def _adapter(model: nn.Module, *, seed: int = 0, dtype: torch.dtype = torch.float32, rank: int = RANK) -> Adapter:
    """A random LoRA of every linear of ``model``."""
    generator, state = torch.Generator().manual_seed(seed), {}
    for name, layer in _linears(model).items():
        down = torch.randn(rank, layer.in_features, generator=generator) / math.sqrt(layer.in_features)
        up = torch.randn(layer.out_features, rank, generator=generator) / math.sqrt(rank)
        state[f"transformer.{name}.lora_A.weight"] = down.to(dtype)
        state[f"transformer.{name}.lora_B.weight"] = up.to(dtype)
    return state


def _snapshot(model: nn.Module) -> Adapter:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _same(model: nn.Module, before: Adapter) -> bool:
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], tensor) for name, tensor in before.items())


def _x(layer: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(7, layer.in_features, generator=torch.Generator().manual_seed(9)).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "adapter_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_a_layer_gains_what_the_full_precision_one_gains(
    pair: Pair, dtype: torch.dtype, adapter_dtype: torch.dtype
) -> None:
    pair = pair.again(dtype)
    state = _adapter(pair.full, dtype=adapter_dtype)
    kinds = {(type(m), getattr(m, "activation", None) is None) for m in _linears(pair.quantized).values()}
    names = list(_linears(pair.full))
    for model in (pair.full, pair.quantized):
        model.load_lora_adapter(state, low_cpu_mem_usage=True)
    for name in names:
        layers = [model.get_submodule(name) for model in (pair.full, pair.quantized)]
        x = _x(layers[0], dtype)
        with torch.inference_mode():
            adapted = [layer(x) for layer in layers]
            gains = [y.double() - layer.base_layer(x).double() for y, layer in zip(adapted, layers, strict=True)]
        assert {y.dtype for y in adapted} == {dtype}
        # The branch is the same; its sum with the layer is rounded at most twice, by half a unit in the last place.
        bound = torch.finfo(dtype).eps * (adapted[0].abs() + adapted[1].abs()).double()
        assert ((gains[0] - gains[1]).abs() <= bound).all(), name
        assert (gains[1].abs() > bound).any(), name
    weight_only = {True} if "norm1.linear" in "".join(names) else set()
    assert kinds == {(QuantizedLinear, only) for only in {False} | weight_only} | {(nn.Linear, True)}


@pytest.mark.parametrize("weight", [1.0, -0.75])
@pytest.mark.parametrize("settings", [{}, {"lora_alpha": 10}, {"lora_alpha": 10, "use_rslora": True}], ids=str)
def test_a_layer_gains_the_product_of_its_own_input(pair: Pair, settings: dict[str, Any], weight: float) -> None:
    config = {"r": RANK, "lora_alpha": RANK, "target_modules": list(_linears(pair.full)), **settings}
    state = _adapter(pair.full)
    pair.quantized.load_lora_adapter(
        state, adapter_name="style", metadata={f"transformer.{key}": value for key, value in config.items()}
    )
    pair.quantized.set_adapters(["style"], [weight])
    scale = weight * config["lora_alpha"] / (math.sqrt(RANK) if config.get("use_rslora") else RANK)
    for name in _linears(pair.full):
        layer = pair.quantized.get_submodule(name)
        x = _x(layer)
        with torch.inference_mode():
            adapted = layer(x)
            gain = adapted.double() - layer.base_layer(x).double()
        down, up = (state[f"transformer.{name}.lora_{part}.weight"].double() for part in "AB")
        # γ_n = n u / (1 - n u) for two sums of products and the scale, then the rounding of the sum with the layer.
        u = torch.finfo(torch.float32).eps / 2
        n = layer.in_features + RANK + 2
        size = abs(scale) * (x.double().abs() @ down.abs().T) @ up.abs().T
        bound = n * u / (1 - n * u) * size + u * adapted.double().abs()
        assert ((gain - scale * (x.double() @ down.T) @ up.T).abs() <= bound).all(), name


class Beside(nn.Module):
    """The side branches of one layer, written down once more."""

    def __init__(self, layer: nn.Module, branches: list[tuple[float, torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self.layer, self.branches = layer, branches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        for scale, down, up in self.branches:
            y = y + nn.functional.linear(nn.functional.linear(x, down), up) * scale
        return y  # type: ignore[no-any-return]


def test_a_model_with_two_adapters_is_a_model_with_two_side_branches(pair: Pair) -> None:
    weights = {"a": 1.0, "b": -0.5}
    adapters = {name: _adapter(pair.full, seed=seed, rank=3 + seed) for seed, name in enumerate(weights)}
    expected = pair.again().quantized
    for name, layer in _linears(pair.quantized).items():
        tensors = [[adapters[a][f"transformer.{name}.lora_{part}.weight"] for part in "AB"] for a in weights]
        branches = [(weights[a], *parts) for a, parts in zip(weights, tensors, strict=True)]
        expected.set_submodule(name, Beside(expected.get_submodule(name), branches))  # type: ignore[arg-type]
        assert layer.in_features == tensors[0][0].shape[1]
    without = pair.call(pair.quantized)
    for name, state in adapters.items():
        pair.quantized.load_lora_adapter(state, adapter_name=name)
    pair.quantized.set_adapters(list(weights), list(weights.values()))
    got = pair.call(pair.quantized)
    assert torch.equal(got, pair.call(expected))
    assert not torch.equal(got, without)


def test_nothing_of_an_adapter_stays_where_it_is_off_or_taken_out(pair: Pair) -> None:
    before, without = _snapshot(pair.quantized), pair.call(pair.quantized)
    pair.quantized.load_lora_adapter(_adapter(pair.full), adapter_name="a")
    adapted = pair.call(pair.quantized)
    assert not torch.equal(adapted, without)
    pair.quantized.set_adapters(["a"], [0.0])
    assert torch.equal(pair.call(pair.quantized), without)
    pair.quantized.set_adapters(["a"], [1.0])
    assert torch.equal(pair.call(pair.quantized), adapted)
    pair.quantized.disable_lora()
    assert torch.equal(pair.call(pair.quantized), without)
    pair.quantized.enable_lora()
    assert torch.equal(pair.call(pair.quantized), adapted)
    pair.quantized.delete_adapters("a")
    assert torch.equal(pair.call(pair.quantized), without)
    pair.quantized.load_lora_adapter(_adapter(pair.full))
    assert torch.equal(pair.call(pair.quantized), adapted)
    pair.quantized.unload_lora()
    assert torch.equal(pair.call(pair.quantized), without)
    assert _same(pair.quantized, before)


def test_the_calls_of_a_pipeline_give_the_videos_that_they_say(
    pipeline: Any, generate: Callable[..., torch.Tensor], tmp_path: Path
) -> None:
    config = LoraConfig(r=RANK, lora_alpha=6, target_modules=list(_linears(pipeline.transformer)))
    for seed, name in enumerate(("a", "b")):
        layers = {k.removeprefix("transformer."): v for k, v in _adapter(pipeline.transformer, seed=seed).items()}
        metadata = config.to_dict()
        metadata["target_modules"] = sorted(metadata["target_modules"])
        pipeline.save_lora_weights(
            tmp_path / name, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
        )
    quantize(pipeline.transformer, RECIPE)
    videos = [generate(pipeline, 2)]
    pipeline.load_lora_weights(tmp_path / "a", adapter_name="a")
    videos.append(generate(pipeline, 2))
    pipeline.load_lora_weights(tmp_path / "b", adapter_name="b")
    pipeline.set_adapters(["a", "b"], [1.0, 0.5])
    videos.append(generate(pipeline, 2))
    assert pipeline.get_list_adapters() == {"transformer": ["a", "b"]}
    assert not any(torch.equal(x, y) for i, x in enumerate(videos) for y in videos[:i])
    layer = pipeline.transformer.blocks[0].attn1.to_q
    assert layer.scaling == {"a": 6 / RANK, "b": 0.5 * 6 / RANK}
    pipeline.set_adapters(["a", "b"], [1.0, 0.0])
    assert torch.equal(generate(pipeline, 2), videos[1])
    pipeline.delete_adapters("b")
    assert torch.equal(generate(pipeline, 2), videos[1])
    pipeline.disable_lora()
    assert torch.equal(generate(pipeline, 2), videos[0])
    pipeline.enable_lora()
    assert torch.equal(generate(pipeline, 2), videos[1])
    pipeline.unload_lora_weights()
    assert torch.equal(generate(pipeline, 2), videos[0])


def test_bits_switch_under_an_adapter(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    state = _adapter(pipeline.transformer)
    schedule = BitSchedule("abs")
    quantize(pipeline.transformer, dataclasses.replace(Recipe.named("dvd-quant", "W4A6"), schedule=schedule))
    pipeline.load_lora_weights(state)
    layer, seen = pipeline.transformer.blocks[1].ffn.net[2], []
    layer.base_layer.register_forward_pre_hook(lambda module, _: seen.append(module.state.bits))
    generate(pipeline, 4, 1.0)
    assert seen == [d.bits for d in trace(pipeline.transformer)] == [8, 4, 8, 4]


def test_activations_are_still_quantized_once_for_q_k_and_v(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []
    torch_backend = operators("torch")
    original = torch_backend.rotate_quantize
    monkeypatch.setattr(torch_backend, "rotate_quantize", lambda x, *rest: (calls.append(x), original(x, *rest))[1])
    forget()
    pair.call(pair.quantized, mode=torch.no_grad)
    without = len(calls)
    pair.quantized.load_lora_adapter(_adapter(pair.full))
    pair.call(pair.quantized, mode=torch.no_grad)
    assert len(calls) == 2 * without
    forget()


def test_a_block_with_an_adapter_compiles_into_one_graph_a_width(
    transformer: Any, call: Callable[..., torch.Tensor]
) -> None:
    state = _adapter(transformer)
    quantize(transformer, Recipe.named("dvd-quant", "W4A6")).load_lora_adapter(state)
    layer = transformer.blocks[0].attn1.to_q
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch._dynamo.utils.counters.clear()
    with torch.inference_mode():
        for bits in (8, 4, 8, 4):
            layer.base_layer.state.bits = bits
            assert torch.equal(compiled(_x(layer)), layer(_x(layer)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len({4, 8})


def test_an_adapter_moves_with_its_model(pair: Pair) -> None:
    pair.quantized.load_lora_adapter(_adapter(pair.full))
    pair.quantized.to("meta")
    assert {tensor.device.type for tensor in pair.quantized.state_dict().values()} == {"meta"}


def test_an_adapter_is_in_evaluation_as_the_model_is(pair: Pair) -> None:
    config = {"r": RANK, "lora_alpha": RANK, "target_modules": list(_linears(pair.full)), "lora_dropout": 0.5}
    metadata = {f"transformer.{key}": value for key, value in config.items()}
    pair.quantized.load_lora_adapter(_adapter(pair.full), metadata=metadata)
    assert torch.equal(pair.call(pair.quantized), pair.call(pair.quantized))


def test_an_adapter_takes_the_place_of_another(pair: Pair) -> None:
    old, new = (_adapter(pair.full, seed=seed) for seed in (0, 1))
    expected = pair.again().quantized
    expected.load_lora_adapter(new, adapter_name="a")
    pair.quantized.load_lora_adapter(old, adapter_name="a")
    pair.quantized.load_lora_adapter(new, adapter_name="a", hotswap=True)
    assert torch.equal(pair.call(pair.quantized), pair.call(expected))


def test_a_saved_model_takes_adapters_as_well(pair: Pair, tmp_path: Path) -> None:
    state, again = _adapter(pair.full), load(save(pair.quantized, tmp_path / "saved"))
    for model in (again, pair.quantized):
        model.load_lora_adapter(state)
    assert torch.equal(pair.call(again), pair.call(pair.quantized))


def test_files_of_other_trainers_are_converted_by_diffusers(pipeline: Any) -> None:
    """Wan's own names with a bias, and those of musubi-tuner with an alpha."""
    full = copy.deepcopy(pipeline.transformer)
    quantize(pipeline.transformer, RECIPE)
    generator = torch.Generator().manual_seed(0)
    own: Adapter = {}
    musubi: Adapter = {}
    renamed = {"self_attn.q": "attn1.to_q", "cross_attn.o": "attn2.to_out.0", "ffn.0": "ffn.net.0.proj"}
    layers = [f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"] + ["ffn.0", "ffn.2"]
    for block in (0, 1):
        for layer in layers:
            sizes = {"ffn.0": (384, 128), "ffn.2": (128, 384)}.get(layer, (128, 128))
            down, up = (
                torch.randn(RANK, sizes[1], generator=generator),
                torch.randn(sizes[0], RANK, generator=generator),
            )
            own |= {
                f"diffusion_model.blocks.{block}.{layer}.lora_down.weight": down,
                f"diffusion_model.blocks.{block}.{layer}.lora_up.weight": up,
                f"diffusion_model.blocks.{block}.{layer}.diff_b": torch.randn(sizes[0], generator=generator),
            }
            start = f"lora_unet_blocks_{block}_{layer.replace('.', '_')}"
            musubi |= {f"{start}.lora_down.weight": down, f"{start}.lora_up.weight": up}
            musubi[f"{start}.alpha"] = torch.tensor(2.0)
    for state, alpha in ((own, RANK), (musubi, 2.0)):
        pipeline.load_lora_weights(state)
        for theirs, ours in renamed.items():
            name = f"blocks.1.{ours}"
            layer, start = pipeline.transformer.get_submodule(name), f"diffusion_model.blocks.1.{theirs}"
            x = _x(layer)
            branch = x @ own[f"{start}.lora_down.weight"].T @ own[f"{start}.lora_up.weight"].T * (alpha / RANK)
            if state is own:
                branch = branch + own[f"{start}.diff_b"]
            with torch.inference_mode():
                torch.testing.assert_close(layer(x) - layer.base_layer(x), branch)
        pipeline.unload_lora_weights()
    assert full.state_dict().keys() > {f"blocks.1.{ours}.weight" for ours in renamed.values()}


def test_hunyuan_video_s_own_names_are_converted_by_diffusers(hunyuan_transformer: Any) -> None:
    from diffusers import HunyuanVideoPipeline

    quantize(hunyuan_transformer, RECIPE)
    parts = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"))
    pipeline = HunyuanVideoPipeline(transformer=hunyuan_transformer, **parts)
    start = "transformer.double_blocks.0.img_attn_qkv"
    down, up = torch.randn(RANK, 128), torch.randn(3 * 128, RANK)
    pipeline.load_lora_weights({f"{start}.lora_A.weight": down, f"{start}.lora_B.weight": up})
    layer = hunyuan_transformer.transformer_blocks[0].attn.to_k
    with torch.inference_mode():
        torch.testing.assert_close(layer(_x(layer)) - layer.base_layer(_x(layer)), _x(layer) @ down.T @ up[128:256].T)


def _changed(change: Callable[[Adapter, str], Any]) -> Callable[[Adapter, str], Adapter]:
    def apply(state: Adapter, start: str) -> Adapter:
        change(state, start)
        return state

    return apply


REFUSED = {
    "nothing": (lambda _s, _k: {}, "expected an adapter, got no tensors"),
    "DoRA": (
        _changed(lambda s, k: s.update({f"{k}.lora_magnitude_vector": torch.ones(128)})),
        "lora_magnitude_vector: expected plain LoRA, got DoRA",
    ),
    "kohya's DoRA": (_changed(lambda s, k: s.update({f"{k}.dora_scale": torch.ones(128)})), "plain LoRA, got DoRA"),
    "LoKr": (lambda _s, k: {f"{k}.lokr_w1": torch.ones(2, 2)}, "lokr_w1: expected plain LoRA, got LoKr"),
    "LoHa": (lambda _s, k: {f"{k}.hada_w1_a": torch.ones(2, 2)}, "expected plain LoRA, got LoHa"),
    "Control LoRA": (lambda _s, _k: {"lora_controlnet": torch.ones(0)}, "lora_controlnet: expected plain LoRA"),
    "difference": (_changed(lambda s, k: s.update({f"{k}.diff": torch.ones(128)})), "got whole differences of weights"),
    "bias of A": (_changed(lambda s, k: s.update({f"{k}.lora_A.bias": torch.ones(4)})), "lora_A.bias: expected"),
    "bias of one layer": (
        _changed(lambda s, k: s.update({f"{k}.lora_B.bias": torch.ones(128)})),
        "lora_B.bias, as other",
    ),
    "another model's part": (
        _changed(lambda s, _k: s.update({"text_encoder.q.lora_A.weight": torch.ones(4, 8)})),
        "text_enc",
    ),
    "unknown layer": (
        _changed(lambda s, _k: s.update({"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.ones(4, 128)})),
        r"blocks\.9\.attn1\.to_q: expected a layer of \w+3DModel, got one that it lacks",
    ),
    "no A": (
        _changed(lambda s, k: s.pop(f"{k}.lora_A.weight")),
        r"expected lora_A\.weight, as other layers have, got none",
    ),
    "no B": (
        _changed(lambda s, k: s.pop(f"{k}.lora_B.weight")),
        r"expected lora_B\.weight, as other layers have, got none",
    ),
    "shape of A": (
        _changed(lambda s, k: s.update({f"{k}.lora_A.weight": torch.ones(4, 127)})),
        r"lora_A\.weight: expected shape \[4, 128\], got \[4, 127\]",
    ),
    "rank of B": (
        _changed(lambda s, k: s.update({f"{k}.lora_B.weight": torch.ones(128, 5)})),
        r"lora_B\.weight: expected shape \[128, 4\], got \[128, 5\]",
    ),
    "NaN": (
        _changed(lambda s, k: s.update({f"{k}.lora_B.weight": torch.full((128, 4), math.nan)})),
        "expected finite values, got NaN or Inf",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_applied_whole_is_named_and_changes_nothing(pair: Pair, what: str) -> None:
    change, message = REFUSED[what]
    before = _snapshot(pair.quantized)
    layer = next(name for name in _linears(pair.quantized) if name.endswith("to_k"))
    state = change(_adapter(pair.full), f"transformer.{layer}")
    with pytest.raises(DvdqError, match=message):
        pair.quantized.load_lora_adapter(state)
    assert _same(pair.quantized, before)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("use_dora", True),
        ("init_lora_weights", "pissa"),
        ("modules_to_save", ["proj_out"]),
        ("bias", "all"),
        ("peft_type", "LOKR"),
        ("layer_replication", [[0, 1]]),
    ],
)
def test_a_setting_that_asks_for_more_than_lora_is_named(pair: Pair, setting: str, value: Any) -> None:
    before = _snapshot(pair.quantized)
    with pytest.raises(DvdqError, match=f"load LoRA: {setting}: expected plain LoRA, .*, got "):
        pair.quantized.load_lora_adapter(_adapter(pair.full), metadata={f"transformer.{setting}": value})
    assert _same(pair.quantized, before)


def test_an_adapter_that_peft_refuses_leaves_the_model_as_it_was(pair: Pair) -> None:
    pair.quantized.load_lora_adapter(
        {k: v for k, v in _adapter(pair.full).items() if ".proj_out." in k}, adapter_name="taken"
    )
    before = _snapshot(pair.quantized)
    with pytest.raises(ValueError, match="already in use"):
        pair.quantized.load_lora_adapter(_adapter(pair.full), adapter_name="taken")
    assert _same(pair.quantized, before)


def test_fusing_is_refused_before_any_layer_is_merged(pipeline: Any) -> None:
    state = _adapter(pipeline.transformer)
    quantize(pipeline.transformer, RECIPE)
    pipeline.load_lora_weights(state)
    before = _snapshot(pipeline.transformer)
    with pytest.raises(DvdqError, match="fuse_lora: WanTransformer3DModel: expected LoRA left beside quantized layers"):
        pipeline.fuse_lora()
    with pytest.raises(DvdqError, match="merge: expected LoRA left beside a quantized layer"):
        pipeline.transformer.blocks[0].attn1.to_q.merge()
    assert _same(pipeline.transformer, before)


def test_what_is_about_the_model_alone_refuses_one_with_an_adapter(pair: Pair, tmp_path: Path) -> None:
    state = _adapter(pair.full)
    for model in (pair.full, pair.quantized):
        model.load_lora_adapter(state)
    before = _snapshot(pair.full)
    message = r"expected a model without LoRA \(pipeline\.unload_lora_weights\(\) takes it out\), got \d+ layers"
    with pytest.raises(DvdqError, match=f"quantize: .*{message}"):
        quantize(pair.full, RECIPE)
    assert _same(pair.full, before)
    with pytest.raises(DvdqError, match=f"save: .*{message}"):
        save(pair.quantized, tmp_path / "saved")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DvdqError, match=f"save_pretrained: .*{message}"):
        pair.quantized.save_pretrained(tmp_path)
    with pytest.raises(DvdqError, match=f"describe: .*{message}"):
        describe(pair.quantized, RECIPE)


def test_an_adapter_merged_before_quantizing_is_part_of_the_weights(pair: Pair) -> None:
    pair.full.load_lora_adapter(_adapter(pair.full))
    pair.full.fuse_lora()
    pair.full.unload_lora()
    quantize(pair.full, RECIPE)
    assert not torch.equal(pair.call(pair.full), pair.call(pair.quantized))


def test_peft_adds_an_adapter_to_a_lora_layer_that_is_there_and_to_no_layer_of_ours(transformer: Any) -> None:
    """The seam: should it move, this names the version that moved it."""
    why = f"peft {peft.__version__}"
    model = nn.Sequential(quantize(transformer, Recipe.named("minmax")).blocks[0].attn1.to_q)
    config = LoraConfig(r=2, target_modules=["0"])
    with pytest.raises(ValueError, match="is not supported"):
        inject_adapter_in_model(config, copy.deepcopy(model), "a")
    place = model[0] = LoraQuantizedLinear(model[0])
    inject_adapter_in_model(config, model, "a")
    assert model[0] is place, why
    assert (list(place.lora_A), place.active_adapters) == (["a"], ["a"]), why
