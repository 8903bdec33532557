"""What this package leans on in diffusers without a promise: every piece is pinned, and a failure says what breaks."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel, WanTransformer3DModel
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING, DiffusersAutoQuantizer

from dvdq_models import DVDQuantConfig
from dvdq_models.diffusers_plugin.quantizer import DVDQuantizer
from dvdq_models.families.hunyuan_video import HUNYUAN_VIDEO
from dvdq_models.families.wan import WAN

BASE = "diffusers.quantizers.base:DiffusersQuantizer"
NAMES = [
    ("diffusers.quantizers.auto:AUTO_QUANTIZER_MAPPING", "from_pretrained cannot find the quantizer"),
    ("diffusers.quantizers.auto:AUTO_QUANTIZATION_CONFIG_MAPPING", "a saved folder cannot be opened"),
    ("diffusers.quantizers.base:DiffusersQuantizer", "the plug-in has no base class"),
    ("diffusers.quantizers.quantization_config:QuantizationConfigMixin", "DVDQuantConfig has no base class"),
    ("diffusers.models.model_loading_utils:_determine_param_device", "a weight is not quantized where it will live"),
    ("diffusers.hooks:HookRegistry", "the bit switch and TeaCache cannot be attached"),
    ("diffusers.hooks:ModelHook", "the bit switch and TeaCache cannot be attached"),
    ("diffusers.hooks.hooks:BaseState", "the bit switch does not see which pass it is in"),
    ("diffusers.hooks.hooks:CacheContext", "the bit switch does not see which pass it is in"),
    ("diffusers.hooks.hooks:StateManager", "the bit switch does not see which pass it is in"),
    ("diffusers.hooks._common:_ALL_TRANSFORMER_BLOCK_IDENTIFIERS", "TeaCache does not find the blocks"),
    ("diffusers.hooks._common:_GO_LC_SUPPORTED_PYTORCH_LAYERS", "layerwise casting may reach codes"),
    ("diffusers.loaders.single_file_model:SINGLE_FILE_LOADABLE_CLASSES", "original checkpoints cannot be converted"),
    ("diffusers.loaders.single_file_utils:infer_diffusers_model_type", "original checkpoints cannot be told apart"),
    ("diffusers.loaders.single_file_utils:fetch_diffusers_config", "original checkpoints have no configuration"),
]

PARAMETERS = [
    ("diffusers.models.model_loading_utils:_determine_param_device", ["param_name", "device_map"]),
    ("diffusers.hooks:HookRegistry.check_if_exists_or_initialize", ["module"]),
    ("diffusers.hooks:HookRegistry.register_hook", ["self", "hook", "name"]),
    ("diffusers.hooks:HookRegistry.remove_hook", ["self", "name", "recurse"]),
    ("diffusers.hooks:HookRegistry.get_hook", ["self", "name"]),
    ("diffusers.hooks:HookRegistry.reset_stateful_hooks", ["self", "recurse"]),
    ("diffusers.hooks:ModelHook.pre_forward", ["self", "module", "args", "kwargs"]),
    ("diffusers.hooks:ModelHook.post_forward", ["self", "module", "output"]),
    ("diffusers.hooks:ModelHook.reset_state", ["self", "module"]),
    ("diffusers.hooks.hooks:StateManager.__init__", ["self", "state_cls", "init_args", "init_kwargs"]),
    (f"{BASE}.maybe_update_loaded_keys", ["self", "loaded_keys", "checkpoint_files"]),
    (f"{BASE}.maybe_update_state_dict", ["self", "state_dict"]),
    (f"{BASE}.update_torch_dtype", ["self", "torch_dtype"]),
    (
        f"{BASE}.get_state_dict_and_metadata",
        ["self", "state_dict", "safe_serialization"],
    ),
]


def _find(path: str) -> Any:
    module, names = path.split(":")
    found = importlib.import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("path", "broken"), NAMES, ids=[path for path, _ in NAMES])
def test_a_name_is_where_it_was(path: str, broken: str) -> None:
    try:
        _find(path)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"diffusers moved {path}; without it {broken} ({error})")


@pytest.mark.parametrize(("path", "expected"), PARAMETERS, ids=[path for path, _ in PARAMETERS])
def test_a_signature_is_what_it_was(path: str, expected: list[str]) -> None:
    found = list(inspect.signature(_find(path)).parameters)
    assert found[-len(expected) :] == expected or found == expected[1:], f"diffusers calls {path} with {found} now"


def test_the_quantizer_is_registered_under_the_name_that_files_carry() -> None:
    assert {"dvd-quant"} <= AUTO_QUANTIZER_MAPPING.keys() & AUTO_QUANTIZATION_CONFIG_MAPPING.keys()
    config = DiffusersAutoQuantizer.from_dict(DVDQuantConfig("dvd-quant", "W4A6").to_dict())
    assert isinstance(DiffusersAutoQuantizer.from_config(config), DVDQuantizer), "a str-Enum is no key any more"


ORDER = [
    "validate_environment(torch_dtype, device_map)",
    "update_torch_dtype",
    "maybe_update_loaded_keys",
    "_process_model_before_weight_loading(device_map, keep_in_fp32_modules)",
    "validate_environment(device_map)",
    "maybe_update_state_dict",
    "maybe_update_state_dict",
    "_process_model_after_weight_loading()",
]


def test_the_quantizer_is_called_in_the_order_that_it_relies_on(
    transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Watched(DVDQuantizer):
        def __getattribute__(self, name: str) -> Any:
            found = super().__getattribute__(name)
            if name not in {entry.split("(")[0] for entry in ORDER}:
                return found

            def call(*args: Any, **kwargs: Any) -> Any:
                calls.append(f"{name}({', '.join(kwargs)})" if "(" in "".join(o for o in ORDER if name in o) else name)
                return found(*args, **kwargs)

            return call

    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "dvd-quant", Watched)
    transformer.save_pretrained(str(tmp_path / "full"), max_shard_size="2MB")
    assert len(list((tmp_path / "full").glob("*.safetensors"))) == 2
    model = WanTransformer3DModel.from_pretrained(str(tmp_path / "full"), quantization_config=DVDQuantConfig())
    assert calls == ORDER, "from_pretrained asks in another order: the class docstring of the plug-in is wrong"
    assert model.hf_quantizer is not None


class _Upcaster(DVDQuantizer):
    """Tells diffusers of no dtype and prepares the model by itself."""

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            parameter.data = parameter.data.to(torch.float16 if name == "proj_out.bias" else torch.float32)

    def maybe_update_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return state_dict


def test_without_a_dtype_a_tensor_takes_that_of_the_empty_model(
    transformer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "dvd-quant", _Upcaster)
    transformer.save_pretrained(str(tmp_path / "full"))
    model = WanTransformer3DModel.from_pretrained(
        str(tmp_path / "full"), quantization_config=DVDQuantConfig(), torch_dtype=torch.bfloat16
    )
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes.pop("proj_out.bias") == torch.float16, "diffusers casts to its own dtype: scales would lose bits"
    assert set(dtypes.values()) == {torch.float32}, "diffusers casts to its own dtype: scales would lose bits"


def test_modules_kept_in_float32_are_named_by_whole_parts_of_a_name() -> None:
    assert "time_embedder" in WanTransformer3DModel._keep_in_fp32_modules
    assert not HunyuanVideoTransformer3DModel._keep_in_fp32_modules
    source = inspect.getsource(_find("diffusers.models.model_loading_utils:load_model_dict_into_meta"))
    assert 'in param_name.split(".")' in source, "diffusers keeps other modules in float32 than the plug-in does"


def test_a_quantized_model_refuses_casts_by_its_flag(transformer: Any) -> None:
    transformer.is_quantized = True
    for cast in (lambda: transformer.to(torch.bfloat16), transformer.half, transformer.float):
        with pytest.raises(ValueError, match="quantized model"):
            cast()


def test_what_a_model_says_of_itself_is_saved(transformer: Any) -> None:
    transformer.register_to_config(quantization_config=DVDQuantConfig("quarot", "W4A4"))
    saved = json.loads(transformer.to_json_string())["quantization_config"]
    assert saved == DVDQuantConfig("quarot", "W4A4").to_dict(), "save_pretrained drops the recipe"


class _Nothing(BaseState):
    def reset(self) -> None:
        """Nothing."""


class _Seeing(ModelHook):
    _is_stateful = True

    def __init__(self) -> None:
        super().__init__()
        self.manager = StateManager(_Nothing)
        self.seen: list[str | None] = []
        self.resets = 0

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        context = self.manager._context
        self.seen.append(None if context is None else context.name)
        return args, kwargs

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        self.resets += 1
        self.manager.reset()
        return module


def test_a_stateful_hook_is_told_which_pass_it_is_in(transformer: Any, call: Any) -> None:
    hook = _Seeing()
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.register_hook(hook, "seeing")
    assert transformer._diffusers_hook is registry, "the registry has another name on its module"
    call(transformer)
    for name in ("cond", "uncond"):
        with transformer.cache_context(name):
            call(transformer)
    assert hook.seen == [None, "cond", "uncond"], "cache_context does not reach hooks: guidance would decide twice"
    registry.reset_stateful_hooks()
    assert hook.resets == 1


def test_a_pipeline_enters_both_contexts_and_ends_by_resetting(
    pipeline: Any, generate: Callable[..., torch.Tensor]
) -> None:
    hook = _Seeing()
    HookRegistry.check_if_exists_or_initialize(pipeline.transformer).register_hook(hook, "seeing")
    generate(pipeline, 2)
    assert hook.seen == ["cond", "uncond"] * 2, "a pass has another name: guidance would decide twice a step"
    assert hook.resets == 1, "the end of a video is not told: the next would go on with its trace"


def test_blocks_return_what_their_families_say() -> None:
    registry = _find("diffusers.hooks._helpers:TransformerBlockRegistry")
    hunyuan = "diffusers.models.transformers.transformer_hunyuan_video"
    blocks = [
        ("diffusers.models.transformers.transformer_wan:WanTransformerBlock", WAN),
        (f"{hunyuan}:HunyuanVideoTransformerBlock", HUNYUAN_VIDEO),
        (f"{hunyuan}:HunyuanVideoSingleTransformerBlock", HUNYUAN_VIDEO),
    ]
    for path, family in blocks:
        metadata = registry.get(_find(path))
        found = [metadata.return_hidden_states_index, metadata.return_encoder_hidden_states_index]
        returns = next(iter(family.teacache.values())).returns
        assert [index for index in found if index is not None] == list(range(len(returns))), (
            f"{path} returns its states elsewhere: TeaCache would store another tensor"
        )
