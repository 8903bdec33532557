"""DVD-Quant inside diffusers: ``from_pretrained`` quantizes as it reads, and reads what is quantized.

The order of diffusers' calls is what this relies on, and tests/test_diffusers_contract.py pins it:

1. ``validate_environment``, ``update_torch_dtype``: the wanted dtype is kept here and diffusers is told of none,
   because it would cast scales too. It then gives each tensor the dtype that the empty model has.
2. ``maybe_update_loaded_keys``: which tensors the files hold.
3. ``_process_model_before_weight_loading``: the empty model gets its quantized layers and dtypes.
4. ``maybe_update_state_dict``, once a file: weights become codes, one at a time.
5. ``_process_model_after_weight_loading``.

So a full checkpoint and a quantized one take the same way, and a device map is made from the quantized sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers.models.model_loading_utils import _determine_param_device
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.utils import logging
from torch import nn

from dvdq_models.apply import magnitudes_of, prepare_layers
from dvdq_models.checkpoint.checksums import check_sums
from dvdq_models.checkpoint.full_precision import check_full_precision
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import open_file
from dvdq_models.diffusers_plugin.methods import check_dtype
from dvdq_models.layers.casting import FLOATS, cast, check_cast
from dvdq_models.layers.encoding import LastFeedback, check_weight
from dvdq_models.layers.linear import STORED, QuantizedLinear
from dvdq_models.quantization_config import DVDQuantConfig, mark_quantized
from dvdq_reference.spec.errors import DvdqError

_OPERATION = "from_pretrained"


class DVDQuantizer(DiffusersQuantizer):  # type: ignore[misc]  # diffusers is untyped
    """Builds the quantized model that diffusers then fills."""

    use_keep_in_fp32_modules = True
    quantization_config: DVDQuantConfig
    pre_quantized: bool

    def __init__(self, quantization_config: DVDQuantConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._dtype: torch.dtype | None = None
        self._device_map: Any = None
        self._source = "state dict"
        self._stored: dict[str, TensorType] = {}
        self._read: Callable[[str], torch.Tensor] | None = None
        self._loaded_keys: list[str] = []
        self._kept_in_float32: Sequence[str] = ()
        self._layers: dict[str, QuantizedLinear] = {}
        self._floats: set[str] = set()
        self._maxima: Mapping[str, torch.Tensor] = {}
        self._moments: Mapping[str, torch.Tensor] = {}

    @property
    def is_serializable(self) -> bool:
        """Saved by ``save_pretrained``."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Codes have no gradient."""
        return False

    @property
    def is_compileable(self) -> bool:
        """Every layer is a graph of torch operators."""
        return True

    @property
    def supports_parallel_loading(self) -> bool:
        """Several files at a time only if there is nothing to quantize: each would take a layer's working memory."""
        return self.pre_quantized

    def validate_environment(self, torch_dtype: Any = None, device_map: Any = None, **_: Any) -> None:
        """Refuse a dtype that the float layers cannot run in; called again with the device map resolved."""
        if torch_dtype is not None:
            check_dtype(_OPERATION, torch_dtype)
        self._device_map = device_map

    def update_torch_dtype(self, torch_dtype: torch.dtype | None) -> None:
        """Keep the wanted dtype: it is that of the empty model's float layers, not of every tensor in the file."""
        self._dtype = torch_dtype

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: Iterable[str | Path]) -> list[str]:
        """Look at the files before anything is read from them."""
        files = [Path(file) for file in checkpoint_files]
        self._source = str(files[0].parent)
        if self.pre_quantized:
            check_sums(_OPERATION, files[0].parent)
        tensors = {k: tensor for file in files for k, tensor in open_file(_OPERATION, file).items()}
        self._stored = {name: tensor.type for name, tensor in tensors.items()}
        self._read = lambda name: tensors[name].read()
        if not self.pre_quantized:
            check_full_precision(_OPERATION, self._source, self._stored)
        self._loaded_keys = loaded_keys
        return loaded_keys

    def _process_model_before_weight_loading(
        self,
        model: nn.Module,
        device_map: Any = None,
        keep_in_fp32_modules: Sequence[str] = (),
        state_dict: dict[str, torch.Tensor] | None = None,
        **_: Any,
    ) -> None:
        if state_dict is not None:  # of from_single_file, which does not say whether it is quantized
            self._stored, self.pre_quantized = _types(state_dict), _holds_codes(state_dict)
            self._read = state_dict.__getitem__
        self._kept_in_float32 = keep_in_fp32_modules
        if not self.pre_quantized:
            self._check(model)
        config = self.quantization_config
        magnitudes = {} if self.pre_quantized else magnitudes_of(model, config.recipe, self._weight)
        self._maxima, self._moments = magnitudes or config.channel_maxima or {}, config.moments or {}
        for name, (_linear, layer) in prepare_layers(
            model,
            config.recipe,
            config.channel_maxima,
            config.moments,
            backend=config.backend,
            encoded=self.pre_quantized,
        ).items():
            model.set_submodule(name, layer)
            self._layers[name] = layer
        if self.pre_quantized:
            self._check(model)
        expected = model.state_dict(keep_vars=True)
        codes = {f"{name}.{part}" for name in self._layers for part in STORED}
        self._floats = {n for n, tensor in expected.items() if tensor.is_floating_point() and n not in codes}
        for name in self._floats:
            expected[name].data = expected[name].data.to(self._dtype_of(name))
        # In place: diffusers compares its own list with the model to say what is missing or unused.
        weights = {f"{name}.weight" for name in self._layers}
        self._loaded_keys[:] = [
            *(set(self._loaded_keys) - weights),
            *(codes & expected.keys() - set(self._loaded_keys)),
        ]
        if state_dict is not None:
            self.maybe_update_state_dict(state_dict)

    def maybe_update_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Replace the weights that one file holds by their codes; a weight is let go before the next is read."""
        if not self._layers:  # from_single_file shows the file as it is, before it looks for a model
            if not _holds_codes(state_dict):
                check_full_precision("from_single_file", "file", _types(state_dict))
            return state_dict
        for name, tensor in state_dict.items():
            if tensor.is_floating_point() and name in self._floats:
                check_cast(_OPERATION, name, tensor, self._dtype_of(name))
        here = [] if self.pre_quantized else [name for name in self._layers if f"{name}.weight" in state_dict]
        last = LastFeedback()
        for name in logging.tqdm(here, desc="Quantizing", disable=not here):
            layer = self._layers[name]
            weight = state_dict.pop(f"{name}.weight")
            device = _determine_param_device(f"{name}.weight", self._device_map)
            weight = weight.to("cpu" if device == "disk" else device)
            check_weight("quantize", name, weight)
            weight = cast("quantize", name, weight, self._dtype_of(f"{name}.weight"))
            stored = layer.encode(weight, self._maxima.get(name), self._moments.get(name), last)
            state_dict.update({f"{name}.{part}": tensor for part, tensor in stored.items()})
        return state_dict

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        for tensor in chain(model.parameters(), model.buffers()):
            if tensor.device.type == "cpu":
                # A copy because what was read is a view of the file: it changes with the file, and BLAS takes another
                # path, and so rounds otherwise, where memory is not aligned.
                tensor.data = tensor.data.clone()
        model.requires_grad_(False)
        mark_quantized(model, self.quantization_config)
        return model

    def get_state_dict_and_metadata(
        self, state_dict: dict[str, torch.Tensor], safe_serialization: bool = False
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Let ``save_pretrained`` write what is in memory, and never a pickle."""
        if not safe_serialization:
            raise DvdqError("save_pretrained", where="safe_serialization", expected="True", got=False)
        for name, tensor in state_dict.items():
            if tensor.device.type == "meta":
                raise DvdqError("save_pretrained", where=name, expected="a tensor in memory", got="one offloaded")
        return state_dict, {}

    def _weight(self, name: str) -> torch.Tensor:
        """A weight as it will be when it is quantized."""
        assert self._read is not None
        return cast("quantize", name, self._read(name), self._dtype_of(name))

    def _dtype_of(self, name: str) -> torch.dtype:
        """As asked for, else as stored; float32 where diffusers keeps it, unless a quantized file says otherwise."""
        if not any(part in self._kept_in_float32 for part in name.split(".")):
            return self._dtype or self._stored[name].dtype
        return self._stored[name].dtype if self.pre_quantized and self._dtype is None else torch.float32

    def _check(self, model: nn.Module) -> None:
        """Every tensor of ``model`` must be stored and no other, in its shape; in a quantized file also its dtype."""
        expected = model.state_dict()
        exact = {f"{name}.{part}" for name in self._layers for part in STORED}
        if missing := sorted(expected.keys() - self._stored.keys()):
            got = f"{len(missing)} missing"
            raise DvdqError(_OPERATION, where=self._source, expected=f"tensor {missing[0]}", got=got)
        ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
        others = sorted(self._stored.keys() - expected.keys())
        if unexpected := [name for name in others if not any(part in name for part in ignored)]:
            raise DvdqError(_OPERATION, where=self._source, expected="no other tensors", got=unexpected[0])
        for name, wanted in expected.items():
            found = self._stored[name]
            free = found.dtype in FLOATS and name not in exact
            if found.shape != wanted.shape or not (free or found.dtype == wanted.dtype):
                expected_type, got = f"{wanted.dtype} {list(wanted.shape)}", f"{found.dtype} {list(found.shape)}"
                raise DvdqError(_OPERATION, where=f"{self._source}: {name}", expected=expected_type, got=got)


def _types(state_dict: Mapping[str, torch.Tensor]) -> dict[str, TensorType]:
    return {name: TensorType(tuple(tensor.shape), tensor.dtype) for name, tensor in state_dict.items()}


def _holds_codes(state_dict: Mapping[str, torch.Tensor]) -> bool:
    return any(name.endswith(".qweight") for name in state_dict)
