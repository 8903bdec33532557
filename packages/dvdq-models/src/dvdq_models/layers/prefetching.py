"""Second sets of codes that wait in the computer's memory: each is copied to the device while the layer before it runs.

What comes next is what followed the last time: the first pass that finishes learns the order, and a layer that was not
expected waits for its copy. At most two sets are on the device, the one in use and the one under way: a copy begins, on
a stream of its own, where the layer before it does. A compiler that reorders layers, as Inductor does with Q, K and V,
holds as many more as it brings before it multiplies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch

from dvdq_kernels import QuantizedWeight

_PREFETCHERS: WeakValueDictionary[int, Prefetcher] = WeakValueDictionary()
"""Whose each set is, by the address of its first tensor: an operator, which graphs need, is given tensors alone."""


@dataclass(frozen=True, eq=False)
class _Copy:
    """A set on its way to a device."""

    key: int
    tensors: list[torch.Tensor]
    device: torch.device
    done: Any

    def wait(self) -> None:
        """What is computed from here on, in memory that the set had too, comes after the copy."""
        _streams_of(self.device).current_stream(self.device).wait_event(self.done)


class Prefetcher:
    """The second sets of codes of one model's layers, in the computer's memory."""

    def __init__(self) -> None:
        self._following: dict[int, tuple[torch.Tensor, ...]] = {}
        self._first: int | None = None
        self._latest: int | None = None
        self._ahead: _Copy | None = None
        self._streams: dict[torch.device, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Prefetcher:
        """A copied model's sets are others; until they are kept here, they are brought when they are asked for."""
        return Prefetcher()

    def __del__(self) -> None:
        self._drop()

    def keep(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """``tensors`` in the computer's memory, pinned where there is a GPU, which copies from there by itself."""
        kept = tuple(tensor.detach().cpu() for tensor in tensors)
        if torch.cuda.is_available():
            kept = tuple(tensor.pin_memory() for tensor in kept)
        _PREFETCHERS[kept[0].data_ptr()] = self
        return kept

    def take(self, kept: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        """Copies of a set on ``device``, in the order of its stream; the next set is then on its way.

        Args:
            kept: of :meth:`keep`.
            device: of the layer that computes with them now.
        """
        key = kept[0].data_ptr()
        self._first = key if self._first is None else self._first
        # After the last layer of a pass nothing is brought: it would stay there until the next video.
        if self._latest is not None and key != self._first:
            self._following[self._latest] = tuple(kept)
        self._latest = key
        ahead = self._ahead
        if ahead is not None and (ahead.key, ahead.device) == (key, device):
            self._ahead = None
        else:
            del ahead
            self._drop()
            ahead = self._begin(kept, device)
        ahead.wait()
        following = self._following.get(key)
        if following is not None:
            self._ahead = self._begin(following, device)
        return ahead.tensors

    def _begin(self, kept: Sequence[torch.Tensor], device: torch.device) -> _Copy:
        streams = _streams_of(device)
        computing = streams.current_stream(device)
        # Memory of the stream that computes, which frees and reuses it in its own order; the other stream's copy begins
        # when all that used this memory before is done, and nothing that computes with it begins before the copy ends.
        tensors = [torch.empty_like(tensor, device=device) for tensor in kept]
        if device not in self._streams:
            self._streams[device] = streams.Stream(device)
        copying = self._streams[device]
        copying.wait_event(computing.record_event())
        with streams.stream(copying):
            for tensor, source in zip(tensors, kept, strict=True):
                tensor.copy_(source, non_blocking=True)
        return _Copy(kept[0].data_ptr(), tensors, device, copying.record_event())

    def _drop(self) -> None:
        """Let go of a set that nobody took, once it is copied: its memory may be another's then."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.wait()


def _streams_of(device: torch.device) -> Any:
    """The module of a device's streams; one without any, such as a CPU, runs all in the order of the calls."""
    module = torch.get_device_module(device)
    return module if hasattr(module, "Stream") else torch.cpu


def brought(weight: QuantizedWeight, beside: torch.Tensor) -> QuantizedWeight:
    """``weight``, kept by a :class:`Prefetcher`, on the device of ``beside``, which is computed before it is needed."""
    kept = [tensor for tensor in (weight.qweight, weight.scale, weight.zero) if tensor is not None]
    codes, scale, *zero = _bring(kept, beside.detach())
    return QuantizedWeight(codes, scale, zero[0] if zero else None, weight.rule, weight.in_features, weight.rotation)


@torch.library.custom_op("dvdq_models::bring", mutates_args=())
def _bring(kept: Sequence[torch.Tensor], beside: torch.Tensor) -> list[torch.Tensor]:
    """Copies of ``kept`` on the device of ``beside``; opaque to a graph, in which no stream can be waited for."""
    prefetcher = _PREFETCHERS.get(kept[0].data_ptr())
    if prefetcher is None:
        return [tensor.to(beside.device, copy=True) for tensor in kept]
    return prefetcher.take(kept, beside.device)


@_bring.register_fake
def _(kept: Sequence[torch.Tensor], beside: torch.Tensor) -> list[torch.Tensor]:
    return [torch.empty_like(tensor, device=beside.device) for tensor in kept]
