"""How much memory a forward pass needs beside the weights, counted without allocating it.

The pass runs on the meta device, where a tensor has a size and no data; every storage that an operation returns is
counted until Python lets go of it. What a kernel allocates inside itself is not seen, and neither is a caching
allocator's waste. Where a model looks at values, of a mask for example, these are on the CPU, and so is all that
follows from them alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import flex_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from dvdq_models.apply import prepare_layers
from dvdq_models.calibration import shapes_of_moments
from dvdq_models.families.example_inputs import example_inputs
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

_LOOKED_AT = 1 << 20
"""Bytes of a tensor that a model may look into: of more, such as a mask of all pairs of tokens, the size counts."""


class PeakMemory(TorchDispatchMode):
    """Bytes of the storages made inside the block and alive at once, now (``live``) and at most (``peak``)."""

    def __init__(self, known: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        known = tuple(known)
        self._meta = any(tensor.is_meta for tensor in known)
        self._seen = {_key(tensor) for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = self._without_data(func, args, kwargs) if self._meta else func(*args, **kwargs)
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return output

    def _without_data(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation of a pass on the meta device: with values if all that goes in has some and little comes out."""
        given = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)]
        if all(tensor.is_meta for tensor in given):
            return func(*args, **kwargs)
        known = not any(tensor.is_meta for tensor in given)
        if func is torch.ops.aten.index.Tensor and not known:
            args = args[0], [place for index in args[1] for place in _places(index)]
        shapes = tree_map_only(torch.Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        try:
            output = func(*shapes[0], **shapes[1])
        except (NotImplementedError, RuntimeError):  # what comes out depends on values
            if known:
                return func(*args, **kwargs)
            raise
        tensors = (tensor for tensor in tree_leaves(output) if isinstance(tensor, torch.Tensor))
        small = sum(tensor.untyped_storage().nbytes() for tensor in tensors) <= _LOOKED_AT
        return func(*args, **kwargs) if known and small else output

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


def _places(index: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """A mask that selects as the places that it selects."""
    if index is None or index.dtype != torch.bool or index.is_meta:
        return (index,)
    return index.nonzero().unbind(1)


class _FlashAttention(TorchFunctionMode):
    """Attention as kernels on a GPU do it: its scores are never stored. On the meta device torch would store them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, _, value = (*args, *(kwargs or {}).values())[:3]
            return _attended(query, value)
        return func(*args, **(kwargs or {}))


def _attended(query: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


@contextmanager
def _on_meta() -> Iterator[None]:
    """What torch refuses on the meta device, though it needs no data there; elsewhere all is as it was."""
    autocast, flex = torch.autocast, flex_attention.flex_attention

    def without_autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

    def without_scores(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        return _attended(query, value) if query.is_meta else flex(query, key, value, *args, **kwargs)

    def put(**functions: Any) -> None:
        for name, function in functions.items():
            setattr(flex_attention if name == "flex_attention" else torch, name, function)

    put(autocast=without_autocast, flex_attention=without_scores)
    try:
        yield
    finally:
        put(autocast=autocast, flex_attention=flex)


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
        with torch.no_grad(), _on_meta(), _FlashAttention(), memory:
            type(transformer).forward(transformer, **inputs, return_dict=False)
    # A model that looks at values, or computes where only a real device can.
    except (NameError, NotImplementedError, RuntimeError, ValueError) as error:
        expected, where = "a pass that runs without data", type(transformer).__name__
        if isinstance(error, NameError):  # of an import that diffusers does without
            expected = "what diffusers imports where it is installed, such as torchvision"
        raise DvdqError("memory of a pass", where=where, expected=expected, got=one_line(error)) from error
    return memory.peak


def pass_bytes(transformer: nn.Module, recipe: Recipe, latent: tuple[int, int, int]) -> int:
    """:func:`forward_peak` of ``transformer``, which is quantized in place, for latents of a size, in bfloat16.

    Args:
        transformer: in full precision; it loses its values.
        recipe: that quantizes it.
        latent: frames, height and width of the latents.
    """
    _empty(transformer)
    for name, (_, layer) in prepare_layers(transformer, recipe, encoded=True).items():
        layer.state.finishing = recipe.finish is not None  # the steps that need most
        transformer.set_submodule(name, layer)
    return forward_peak(transformer, example_inputs(transformer, latent))


def moments_bytes(transformer: nn.Module, latent: tuple[int, int, int]) -> list[int]:
    """Of each matrix of second moments that rounding with feedback takes; arguments as for :func:`pass_bytes`."""
    _empty(transformer)
    with shapes_of_moments(transformer) as shapes:
        forward_peak(transformer, example_inputs(transformer, latent))
    return [matrix.nbytes for matrix in shapes.values()]


def _empty(transformer: nn.Module) -> None:
    transformer.to("meta")
    for parameter in transformer.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
