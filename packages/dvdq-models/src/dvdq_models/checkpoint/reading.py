"""A quantized transformer from its folder, every file and tensor checked first."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn

from dvdq_models.apply import swap_linears
from dvdq_models.checkpoint.checksums import check_sums
from dvdq_models.checkpoint.format import read_quantized_config
from dvdq_models.families import transformer_class
from dvdq_reference.spec.errors import DvdqError


def load(folder: str | Path, *, backend: str = "auto", dtype: torch.dtype | None = None) -> nn.Module:
    """The transformer that :func:`~dvdq_models.save` wrote, in evaluation mode on the CPU.

    Args:
        folder: the transformer's folder.
        backend: which kernels run.
        dtype: of biases and of the layers that stayed as they were, except those that diffusers keeps in float32; None
            is as stored, bit for bit. Codes, scales and zero-points are always as stored.

    Raises:
        DvdqError: a folder that is no quantized checkpoint, a newer format, an unknown class, a file that is missing,
            truncated or altered, or tensors that are missing, unexpected, or of another shape or dtype.
    """
    folder = Path(folder)
    config, recipe = read_quantized_config(folder)
    model_class = transformer_class("load", folder, config)
    with init_empty_weights(include_buffers=False):
        transformer = model_class.from_config(config)
    layers = swap_linears(transformer, recipe, backend=backend)
    for layer_name, (_, layer) in layers.items():
        transformer.set_submodule(layer_name, layer)
    check_sums("load", folder)
    state = _read_tensors(folder)
    _check_tensors(folder, transformer.state_dict(), state)
    if dtype is not None:
        kept = (*(transformer._keep_in_fp32_modules or ()), "scale")
        for key, tensor in state.items():
            if tensor.is_floating_point() and not any(part in kept for part in key.split(".")):
                state[key] = tensor.to(dtype)
    transformer.load_state_dict(state, strict=True, assign=True)
    transformer.requires_grad_(False)
    loaded: nn.Module = transformer.eval()
    return loaded


def _read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DvdqError("load", where=str(folder), expected="safetensors files", got="none")
    state: dict[str, torch.Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                # Cloned because BLAS takes another path, and so rounds otherwise, on memory that is not aligned.
                state.update({key: file.get_tensor(key).clone() for key in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise DvdqError("load", where=str(path), expected="a safetensors file", got=str(error)) from error
    return state


def _check_tensors(folder: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise DvdqError("load", where=str(folder), expected=f"tensor {missing[0]}", got=f"{len(missing)} missing")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise DvdqError("load", where=str(folder), expected="no other tensors", got=unexpected[0])
    for name, wanted in expected.items():
        got = found[name]
        same_dtype = got.dtype == wanted.dtype or (got.is_floating_point() and not name.endswith(".scale"))
        if got.shape != wanted.shape or not same_dtype:
            raise DvdqError(
                "load",
                where=f"{folder}: {name}",
                expected=f"{wanted.dtype} {list(wanted.shape)}",
                got=f"{got.dtype} {list(got.shape)}",
            )
