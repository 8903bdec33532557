"""How much memory a forward pass needs beside the weights, counted without allocating it.

The pass runs on the meta device, where a tensor has a size and no data; every storage that an operation returns is
counted until Python lets go of it. What a kernel allocates inside itself is not seen, and neither is a caching
allocator's waste.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dvdq_models.apply import prepare_layers
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe


class PeakMemory(TorchDispatchMode):
    """Bytes of the storages made inside the block and alive at once, now (``live``) and at most (``peak``)."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._seen = {_key(tensor) for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return output

    def _count(self, tensor: torch.Tensor) -> None:
        key = _key(tensor)
        if key in self._seen:
            return
        storage = tensor.untyped_storage()
        self._seen.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class _FlashAttention(TorchFunctionMode):
    """Attention as kernels on a GPU do it: its scores are never stored. On the meta device torch would store them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, _, value = (*args, *(kwargs or {}).values())[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def forward_peak(transformer: nn.Module, inputs: Mapping[str, Any]) -> int:
    """Bytes that one forward pass needs at its worst moment, neither the weights nor the inputs counted.

    The class's own forward runs, without the hooks of this model: nothing on the meta device can decide a bit width.

    Args:
        transformer: full precision or quantized, on the meta device unless it is small.
        inputs: keyword arguments on the same device, e.g. of
            :func:`~dvdq_models.families.example_inputs.example_inputs`.

    Raises:
        DvdqError: a model whose pass cannot run on the meta device.
    """
    given = [value for value in tree_leaves(inputs) if isinstance(value, torch.Tensor)]
    known = (*transformer.parameters(), *transformer.buffers(), *given)
    memory = PeakMemory(known)
    try:
        with torch.no_grad(), _FlashAttention(), memory:
            type(transformer).forward(transformer, **inputs, return_dict=False)
    # A model that looks at values, or computes where only a real device can.
    except (NameError, NotImplementedError, RuntimeError, ValueError) as error:
        expected, where = "a pass that runs without data", type(transformer).__name__
        raise DvdqError("memory of a pass", where=where, expected=expected, got=one_line(error)) from error
    return memory.peak


def pass_bytes(transformer: nn.Module, recipe: Recipe, latent: tuple[int, int, int]) -> int:
    """:func:`forward_peak` of ``transformer``, which is quantized in place, for latents of a size, in bfloat16.

    Args:
        transformer: in full precision; it loses its values.
        recipe: that quantizes it.
        latent: frames, height and width of the latents.
    """
    transformer.to("meta")
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for name, (_, layer) in prepare_layers(transformer, recipe, encoded=True).items():
        layer.state.finishing = recipe.finish is not None  # the steps that need most
        transformer.set_submodule(name, layer)
    return forward_peak(transformer, example_inputs(transformer, latent))


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
