"""Which backends there are, which can run here, and which one a call gets. Backends are imported when first used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Protocol, cast

import torch

# Loaded before the package binds the function of that name: when it loads, the folder takes the name.
import dvdq_kernels.backends  # noqa: F401
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Clip


class Operators(Protocol):
    """What a backend's folder offers: one function an operator, over plain tensors (:mod:`dvdq_kernels.ops`)."""

    def quantize_weight(
        self,
        weight: torch.Tensor,
        bits: int,
        grid: str,
        group_size: int | None,
        symmetric: bool,
        num_bounds: int,
        tolerance: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def dequantize(
        self, qweight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, in_features: int
    ) -> torch.Tensor: ...

    def rotate(self, x: torch.Tensor, kind: str, seed: int | None) -> torch.Tensor: ...

    def rotate_quantize(
        self, x: torch.Tensor, bits: int, block: int | None, clip: Clip, kind: str | None, seed: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...

    def integer_linear(
        self,
        codes: torch.Tensor,
        x_scale: torch.Tensor,
        token_sum: torch.Tensor,
        qweight: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor | None,
        bias: torch.Tensor | None,
        x_bits: int,
        bits: int,
        dtype: torch.dtype,
        emulated: bool,
    ) -> torch.Tensor: ...

    def float_linear(
        self,
        x: torch.Tensor,
        qweight: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor | None,
        bias: torch.Tensor | None,
        bits: int,
        kind: str | None,
        seed: int | None,
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Backend:
    """One backend, e.g. ``Backend("torch", load=…, refusal=lambda: None, device_types=None)``.

    Args:
        name: what ``backend=`` calls it.
        load: imports it and gives its operators.
        refusal: why it cannot run on this machine, or None if it can; must be cheap and must not raise.
        device_types: types of device whose tensors it takes; None for any.
        offers: the public functions that it has kernels for; None for all.
        grids: the weight grids that it has kernels for; None for all.
    """

    name: str
    load: Callable[[], Operators]
    refusal: Callable[[], str | None]
    device_types: frozenset[str] | None = None
    offers: frozenset[str] | None = None
    grids: frozenset[str] | None = None

    def refuses(self, operation: str, device: torch.device, grid: str | None = None) -> str | None:
        """Why it cannot run ``operation`` on tensors of ``device``, or None if it can.

        ``grid`` is the weight grid that is asked for, if one is.
        """
        reason = self.refusal()
        if reason is not None:
            return reason
        if self.device_types is not None and device.type not in self.device_types:
            return f"runs on {', '.join(sorted(self.device_types))}, not on {device.type}"
        if self.offers is not None and operation not in self.offers:
            return f"has {', '.join(sorted(self.offers))} alone"
        if grid is not None and self.grids is not None and grid not in self.grids:
            return f"has the grids {', '.join(sorted(self.grids))}, not {grid}"
        return None


@dataclass(frozen=True)
class Selection:
    """The backend that a call got, and why each one preferred to it was refused."""

    backend: Backend
    refused: MappingProxyType[str, str]


def _folder(name: str) -> Callable[[], Operators]:
    return lambda: cast(Operators, importlib.import_module(f"dvdq_kernels.backends.{name}"))


def is_installed(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    return sys.modules.get(module) is not None or (module not in sys.modules and find_spec(module) is not None)


def _numba_refusal() -> str | None:
    return None if is_installed("numba") else "numba is not installed: pip install 'dvdq-kernels[numba]'"


def _triton_interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton_refusal() -> str | None:
    if not is_installed("triton"):
        return "triton is not installed"
    if _triton_interprets():
        return None
    if not torch.cuda.is_available():
        return "no CUDA device (TRITON_INTERPRET=1 runs the kernels on a CPU, slowly, to check them)"
    major, minor = torch.cuda.get_device_capability()
    return None if major >= 8 else f"needs compute capability 8.0, this device has {major}.{minor}"


def _no_kernels(name: str) -> Backend:
    def load() -> Operators:
        raise DvdqError("backend", where=name, expected="a backend with kernels", got="none in this release")

    return Backend(name, load, lambda: "no kernels in this release", frozenset({"cuda"}))


_FAST_GRIDS = frozenset({"minmax", "bgr"})
"""QuaRot's clip search serves a baseline, which is quantized once: that of plain PyTorch is enough."""

_BACKENDS: dict[str, Backend] = {
    "cupy": _no_kernels("cupy"),
    "triton": Backend(
        "triton",
        _folder("triton"),
        _triton_refusal,
        device_types=frozenset({"cpu" if _triton_interprets() else "cuda"}),
        grids=_FAST_GRIDS,
    ),
    "numba": Backend(
        "numba",
        _folder("numba"),
        _numba_refusal,
        device_types=frozenset({"cpu"}),
        offers=frozenset({"quantize_weight"}),
        grids=_FAST_GRIDS,
    ),
    "torch": Backend("torch", _folder("torch"), lambda: None),
}
"""In order of preference."""


def backends() -> dict[str, str | None]:
    """Every backend by name: None if it can run on this machine, else the reason why not.

    >>> backends()["torch"] is None
    True
    """
    return {name: backend.refusal() for name, backend in _BACKENDS.items()}


def offering(operation: str, grid: str | None = None) -> tuple[str, ...]:
    """The backends that have kernels for ``operation``, and a weight's ``grid``, whether they can run here or not."""
    return tuple(
        name
        for name, backend in _BACKENDS.items()
        if (backend.offers is None or operation in backend.offers)
        and (grid is None or backend.grids is None or grid in backend.grids)
    )


def select(operation: str, backend: str, device: torch.device, grid: str | None = None) -> Selection:
    """The backend for ``operation`` on tensors of ``device``; ``quantize_weight`` also names the ``grid`` of its rule.

    ``"auto"`` is the first that has kernels for it and does not refuse, in order of preference. A name is that backend
    or a :class:`DvdqError` that says why it cannot run and what can: nothing falls back in silence.
    """
    if backend != "auto" and backend not in _BACKENDS:
        raise DvdqError(operation, where="backend", expected=f"auto, {', '.join(_BACKENDS)}", got=repr(backend))
    refused: dict[str, str] = {}
    for candidate in map(_BACKENDS.__getitem__, offering(operation) if backend == "auto" else (backend,)):
        reason = candidate.refuses(operation, device, grid)
        if reason is None:
            return Selection(candidate, MappingProxyType(refused))
        refused[candidate.name] = reason
    able = [b.name for b in _BACKENDS.values() if b.refuses(operation, device, grid) is None]
    raise DvdqError(
        operation,
        where=f"backend on {device.type}",
        expected=" or ".join(able) or "a backend that can run here",
        got="; ".join(f"{name} ({reason})" for name, reason in refused.items()),
    )


def operators(name: str) -> Operators:
    """The functions of a backend that :func:`select` chose."""
    return _BACKENDS[name].load()


@contextmanager
def registered(backend: Backend) -> Iterator[Backend]:
    """A further backend, asked for by name, for the length of a ``with`` block."""
    if backend.name in _BACKENDS:
        raise DvdqError("registered", expected="a name that is not taken", got=backend.name)
    _BACKENDS[backend.name] = backend
    try:
        yield backend
    finally:
        del _BACKENDS[backend.name]
