"""Every two features on one model, in both orders, and each twice: the same video, or refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig

from dvdq_models import DvdqError, Recipe, load, quantize, save, trace
from dvdq_models.teacache import enable_teacache

pytestmark = [
    pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*layerwise.*:UserWarning"),
]

CPU = torch.device("cpu")
LORA = {
    f"transformer.blocks.{i}.attn1.to_q.lora_{part}.weight": torch.full(shape, 0.05)
    for i in range(2)
    for part, shape in (("A", (4, 128)), ("B", (128, 4)))
}
FEATURES: dict[str, Callable[[Any], Any]] = {
    "bit schedule": lambda p: quantize(p.transformer, Recipe.named("minmax", "W4A6")),
    "TeaCache": lambda p: enable_teacache(p.transformer, 0.2, coefficients="wan2.1-t2v-14b", pipeline=p),
    "first-block cache": lambda p: p.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2)),
    "attention broadcast": lambda p: p.transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2, current_timestep_callback=lambda: p.current_timestep
        )
    ),
    "LoRA": lambda p: p.load_lora_weights(dict(LORA), adapter_name="a"),
    "offload": lambda p: p.transformer.enable_group_offload(CPU, CPU, "leaf_level"),
    # Of the layers in full precision diffusers' own pattern leaves none.
    "layerwise casting": lambda p: p.transformer.enable_layerwise_casting(
        torch.float8_e4m3fn, torch.float32, skip_modules_pattern=("blocks",)
    ),
    "compile": lambda p: p.transformer.compile_repeated_blocks(backend="eager"),
}
CACHES = ("TeaCache", "first-block cache", "attention broadcast")
LAYERS = "without offloading of single layers and layerwise casting; turn them on afterwards"
REFUSED: dict[tuple[str, str], str] = {
    **dict.fromkeys(itertools.product(CACHES[1:], CACHES[1:]), "already been enabled"),
    **{(cache, "TeaCache"): "no other cache; call disable_cache" for cache in CACHES[1:]},
    **{("TeaCache", cache): "no other cache; call disable_teacache" for cache in CACHES[1:]},
    ("LoRA", "bit schedule"): "a model without LoRA",
    ("offload", "bit schedule"): LAYERS,
    ("layerwise casting", "bit schedule"): LAYERS,
    ("bit schedule", "bit schedule"): "a model in full precision",
    ("LoRA", "LoRA"): "already in use",
    ("layerwise casting", "layerwise casting"): "already exists",
}


@pytest.fixture
def make(pipeline: Any, generate: Callable[..., torch.Tensor]) -> Callable[[str, str], torch.Tensor | str]:
    """The latents with two features turned on in this order, or why not."""

    def run(first: str, second: str) -> torch.Tensor | str:
        torch._dynamo.reset()
        if "bit schedule" not in (first, second):
            FEATURES["bit schedule"](pipeline)
        FEATURES[first](pipeline)
        try:
            FEATURES[second](pipeline)
        except ValueError as error:
            return str(error)
        latents = generate(pipeline, 4, 1.0)
        assert [d.step for d in trace(pipeline.transformer)] == list(range(4))
        assert latents.isfinite().all()
        return latents

    return run


_DONE: dict[tuple[str, str], torch.Tensor] = {}
"""What one order gave, for the other to compare with."""


# Blocks are compiled when they first run, by then with every hook on. Half a minute each, so in one order alone.
ONE_ORDER = (("compile", "first-block cache"), ("compile", "offload"), ("compile", "attention broadcast"))
PAIRS = [pair for pair in itertools.product(FEATURES, repeat=2) if pair not in ONE_ORDER]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_both_orders_are_one_video_or_refused(
    first: str, second: str, make: Callable[[str, str], torch.Tensor | str]
) -> None:
    made = make(first, second)
    if (first, second) in REFUSED:
        assert isinstance(made, str)
        assert REFUSED[first, second] in made
        return
    assert isinstance(made, torch.Tensor), made
    _DONE[first, second] = made
    if (second, first) in _DONE:
        assert torch.equal(made, _DONE[second, first])


@pytest.mark.parametrize("feature", FEATURES)
def test_a_model_with_a_feature_is_saved_whole_or_refused(feature: str, pipeline: Any, tmp_path: Path) -> None:
    FEATURES["bit schedule"](pipeline)
    before = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    if feature != "bit schedule":
        FEATURES[feature](pipeline)
    if feature in ("LoRA", "layerwise casting"):
        with pytest.raises(DvdqError, match="save"):
            save(pipeline.transformer, tmp_path / "q")
        assert not (tmp_path / "q").exists()
    else:
        after = load(save(pipeline.transformer, tmp_path / "q")).state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
