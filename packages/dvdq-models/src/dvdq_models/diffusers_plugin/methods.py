"""diffusers' own methods that are not what they were on a quantized transformer: casts, and what needs its weights.

diffusers refuses ``.to(dtype)``, ``.half()`` and ``.float()`` for every quantized model, and with them
``Pipeline.from_pipe`` and ``Pipeline.to(dtype)``. Codes and scales have dtypes of their own, so a cast is what
``torch_dtype`` is when a model is loaded: the dtype of what stayed in full precision, float32 where diffusers keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NoReturn

import torch
from diffusers.hooks._common import _GO_LC_SUPPORTED_PYTORCH_LAYERS
from diffusers.hooks.group_offloading import _is_group_offload_enabled
from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
from diffusers.models._modeling_parallel import TensorParallelConfig
from torch import nn

from dvdq_models.layers.casting import check_cast
from dvdq_models.layers.linear import STORED, QuantizedLinear
from dvdq_reference.spec.errors import DvdqError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the layers in full precision can run in."""
_OPERATION = "to"
_REFUSED = {
    "dequantize": "the checkpoint in full precision: what was rounded away is not in the codes",
    "fuse_qkv_projections": "three layers: Q, K and V share their activations' codes already",
}


def accept_methods(transformer: nn.Module) -> None:
    """Make the methods of this one transformer that concern its weights those of a quantized model."""
    for name, expected in _REFUSED.items():
        vars(transformer)[name] = partial(_refuse, transformer, name, expected)
    vars(transformer)["enable_layerwise_casting"] = partial(_enable_layerwise_casting, transformer)
    vars(transformer)["enable_parallelism"] = partial(_enable_parallelism, transformer)
    vars(transformer)["to"] = partial(_to, transformer)
    for name, dtype in {"float": torch.float32, "bfloat16": torch.bfloat16, "half": torch.float16}.items():
        vars(transformer)[name] = partial(_to, transformer, dtype)


def check_dtype(operation: str, dtype: Any) -> None:
    """A :class:`DvdqError` for anything but a dtype that the layers in full precision can run in."""
    if dtype not in DTYPES:
        raise DvdqError(operation, where="dtype", expected=" or ".join(map(str, DTYPES)), got=dtype)


def _refuse(transformer: nn.Module, name: str, expected: str, *args: Any, **kwargs: Any) -> NoReturn:
    raise DvdqError(name, where=type(transformer).__name__, expected=expected, got="a quantized model")


def _enable_layerwise_casting(
    transformer: Any, storage_dtype: torch.dtype = torch.float8_e4m3fn, *args: Any, **kwargs: Any
) -> None:
    """diffusers' own, if everything that it would store in ``storage_dtype`` fits into it."""
    chosen = kwargs.get("skip_modules_pattern")
    skipped = (
        *(DEFAULT_SKIP_MODULES_PATTERN if chosen is None else chosen),
        *(transformer._keep_in_fp32_modules or ()),
        *(transformer._skip_layerwise_casting_patterns or ()),
    )
    for name, module in transformer.named_modules():
        if isinstance(module, _GO_LC_SUPPORTED_PYTORCH_LAYERS) and not any(re.search(part, name) for part in skipped):
            for leaf, tensor in module.named_parameters(recurse=False):
                check_cast("enable_layerwise_casting", f"{name}.{leaf}", tensor, storage_dtype)
    type(transformer).enable_layerwise_casting(transformer, storage_dtype, *args, **kwargs)


def _enable_parallelism(transformer: Any, *, config: Any, **kwargs: Any) -> None:
    """diffusers' own for contexts; weights that are codes are not cut into parts."""
    tensors = getattr(config, "tensor_parallel_config", None)
    if isinstance(config, TensorParallelConfig) or tensors is not None:
        expected = "context parallelism: packed codes, grids of groups and rotations span a layer's whole input"
        raise DvdqError("enable_parallelism", where="config", expected=expected, got="tensor parallelism")
    type(transformer).enable_parallelism(transformer, config=config, **kwargs)


def _to(transformer: Any, *args: Any, **kwargs: Any) -> Any:
    """``torch.nn.Module.to``: the move is diffusers', the cast is ours.

    Raises:
        DvdqError: another dtype than :data:`DTYPES`, a value that does not fit into it, or a cast of a model whose
            tensors are elsewhere or cast as they run; the model is then as it was.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    if dtype is not None:
        _cast(transformer, dtype)
    if device is not None or memory_format is not None:
        move = {"device": device, "non_blocking": non_blocking, "memory_format": memory_format}
        type(transformer).to(transformer, **{name: value for name, value in move.items() if value is not None})
    return transformer


def _cast(transformer: Any, dtype: torch.dtype) -> None:
    check_dtype(_OPERATION, dtype)
    kept = set(transformer._keep_in_fp32_modules or ())
    wanted = [
        (name, tensor, torch.float32 if kept & set(name.split(".")) else dtype) for name, tensor in _floats(transformer)
    ]
    changing = [(name, tensor, to) for name, tensor, to in wanted if tensor.dtype != to]
    if not changing:
        return
    expected = "a model without it (give torch_dtype when loading)"
    if _is_group_offload_enabled(transformer):
        raise DvdqError(_OPERATION, where=str(dtype), expected=expected, got="group offloading")
    for name, tensor, to in changing:
        if tensor.device.type == "meta":
            raise DvdqError(_OPERATION, where=name, expected=expected, got="a tensor that is offloaded")
        if tensor.dtype.itemsize == 1:
            raise DvdqError(_OPERATION, where=name, expected=expected, got="layerwise casting")
        check_cast(_OPERATION, name, tensor, to)
    for _, tensor, to in changing:
        tensor.data = tensor.data.to(to)


def _floats(transformer: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every float of the model that is neither a scale nor a smoothing factor."""
    stored = {
        f"{name}.{part}"
        for name, module in transformer.named_modules()
        if isinstance(module, QuantizedLinear)
        for part in STORED
    }
    for tensors in (transformer.named_parameters(), transformer.named_buffers()):
        yield from ((name, tensor) for name, tensor in tensors if tensor.is_floating_point() and name not in stored)
