"""Activations that are quantized once for several linears.

To Q, K and V goes the same tensor. Whether it is the same is known without looking at its values: the same object, not
written to since.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any
from weakref import ReferenceType, ref

import torch

from dvdq_kernels.gpu import is_capturing
from dvdq_kernels.ops import run

_Quantized = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_LATEST: dict[int, tuple[ReferenceType[torch.Tensor], int, tuple[Any, ...], _Quantized]] = {}
"""By thread: the latest tensor that was quantized, its version, what was asked for, and the result."""


# Dynamo, which cannot know objects apart, leaves this as one call in its graph. AOTAutograd then runs it on stand-ins
# that are the same object where the tensor is the same, with versions, so that the graph that is compiled shares too.
@torch.compiler.allow_in_graph  # type: ignore[untyped-decorator]
def rotate_quantize_once(x: torch.Tensor, *request: Any) -> _Quantized:
    """``torch.ops.dvdq.rotate_quantize``, or what it gave for the same arguments a moment ago."""
    if x.is_inference():
        made: _Quantized = run("rotate_quantize", x, *request)
        return made
    # A CUDA graph that took the codes of a call outside of it would never make new ones.
    thread, request = get_ident(), (*request, is_capturing(x.device))
    latest = _LATEST.get(thread)
    if latest is not None and latest[0]() is x and latest[1:3] == (x._version, request):
        return latest[3]
    _LATEST.pop(thread, None)
    made = run("rotate_quantize", x, *request[:-1])
    _LATEST[thread] = ref(x, _forget), x._version, request, made
    return made


def _forget(dead: ReferenceType[torch.Tensor]) -> None:
    for thread, latest in tuple(_LATEST.items()):
        if latest[0] is dead:
            _LATEST.pop(thread, None)
