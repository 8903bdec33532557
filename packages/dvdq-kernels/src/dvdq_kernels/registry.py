"""Which backends there are, what each can do, and which can run here. Backends are imported when first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Loaded before the package binds the function of that name: when it loads, the folder takes the name.
import dvdq_kernels.backends  # noqa: F401
from dvdq_kernels import refusals
from dvdq_kernels.call import Call, Place
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Backend:
    """One backend, e.g. ``Backend("torch", load=…, refusal=lambda: None)``.

    Args:
        name: what ``backend=`` calls it.
        load: imports it and gives its operators.
        refusal: why it cannot run on this machine, or None if it can; must be cheap and must not raise.
        absence: why it cannot tell its launches on a GPU that need not be here, or None if it can; None where there is
            nothing to tell.
        device_types: types of device whose tensors it takes; None for any.
        offers: the public functions that it has kernels for; None for all.
        grids: the weight grids that it has kernels for; None for all.
        takes_packed: whether it makes and multiplies activation codes that lie two a byte.
        packs: whether its product wants codes of some bits so, on a device.
        for_checks: whether it is slower here than plain PyTorch, so that only who asks for it by name gets it.
    """

    name: str
    load: Callable[[], Any]
    refusal: Callable[[], str | None]
    absence: Callable[[], str | None] | None = None
    device_types: Callable[[], frozenset[str]] | None = None
    offers: frozenset[str] | None = None
    grids: frozenset[str] | None = None
    takes_packed: bool = False
    packs: Callable[[Place, int], bool] = lambda place, bits: False
    for_checks: Callable[[], bool] = lambda: False

    def refuses(self, call: Call) -> str | None:
        """Why it cannot run ``call``, or None if it can."""
        place = call.place
        reason = self.refusal() if place.here else "tells no launches" if self.absence is None else self.absence()
        if reason is not None:
            return reason
        types = None if self.device_types is None or not place.here else self.device_types()
        if types is not None and place.type not in types:
            return f"runs on {', '.join(sorted(types))}, not on {place.type}"
        if self.offers is not None and call.operation not in self.offers:
            return f"has {', '.join(sorted(self.offers))} alone"
        if call.grid is not None and self.grids is not None and call.grid not in self.grids:
            return f"has the grids {', '.join(sorted(self.grids))}, not {call.grid}"
        if call.packed and not self.takes_packed:
            return "takes activation codes a byte each, not two a byte"
        return None


def _folder(name: str) -> Callable[[], Any]:
    return lambda: importlib.import_module(f"dvdq_kernels.backends.{name}")


def _has_int4(place: Place, bits: int) -> bool:
    """Whether codes of ``bits`` bits meet INT4 tensor cores, of GPUs or emulated ones of 8.0 to 8.9."""
    capability = refusals.emulated_capability() if place.capability is None else place.capability
    return bits <= 4 and capability is not None and 80 <= capability <= 89


_FAST_GRIDS = frozenset({"minmax", "bgr"})
"""QuaRot's clip search serves a baseline, which is quantized once: that of plain PyTorch is enough."""

_BACKENDS: dict[str, Backend] = {
    "cupy": Backend(
        "cupy",
        _folder("cupy"),
        refusals.cupy_refusal,
        refusals.cupy_absence,
        device_types=lambda: frozenset({"cpu" if refusals.is_emulated() else "cuda"}),
        grids=_FAST_GRIDS,
        takes_packed=True,
        packs=_has_int4,
        for_checks=refusals.is_emulated,
    ),
    "triton": Backend(
        "triton",
        _folder("triton"),
        refusals.triton_refusal,
        refusals.triton_absence,
        device_types=lambda: frozenset({"cpu" if refusals.triton_interprets() else "cuda"}),
        grids=_FAST_GRIDS,
    ),
    "numba": Backend(
        "numba",
        _folder("numba"),
        refusals.numba_refusal,
        device_types=lambda: frozenset({"cpu"}),
        offers=frozenset({"quantize_weight"}),
        grids=_FAST_GRIDS,
    ),
    "torch": Backend("torch", _folder("torch"), lambda: None, takes_packed=True),
}


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


def registry() -> dict[str, Backend]:
    """Every backend by name."""
    return _BACKENDS


def operators(name: str) -> Any:
    """The functions of a backend that was selected."""
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
