"""Which backend a call gets, and why.

``"auto"`` is the backend preferred among those that can run the call: the fastest where the GPU was measured, else by
the places that backends give themselves. A name is that backend or an error: nothing falls back in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import torch

from dvdq_kernels.backend import Backend
from dvdq_kernels.call import Call, Place, place_of
from dvdq_kernels.ranking import measured
from dvdq_kernels.registry import offering, registry, remembered
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Selection:
    """The backend that a call got, why each one preferred to it was refused, and why the order is what it is."""

    backend: Backend
    refused: MappingProxyType[str, str]
    reason: str


def select(call: Call, backend: str = "auto") -> Selection:
    """The backend for ``call``: the preferred of those that can run it, or the one that is named.

    Raises:
        DvdqError: no such backend, or one that cannot run the call; says why, and what can.
    """
    known = registry()
    if backend != "auto" and backend not in known:
        raise DvdqError(call.operation, where="backend", expected=f"auto, {', '.join(known)}", got=repr(backend))
    order, reason = preferences(call) if backend == "auto" else ((backend,), "asked for by name")
    refused: dict[str, str] = {}
    for name in order:
        candidate = known[name]
        refusal = candidate.refuses(call)
        if refusal is None and backend == "auto" and call.place.here and candidate.for_checks():
            refusal = "runs here to be checked: asked for by name alone"
        if refusal is None:
            return Selection(candidate, MappingProxyType(refused), reason)
        refused[name] = refusal
    able = [name for name, candidate in known.items() if candidate.refuses(call) is None]
    raise DvdqError(
        call.operation,
        where=f"backend on {call.place.type}",
        expected=" or ".join(able) or "a backend that can run here",
        got="; ".join(f"{name} ({refusal})" for name, refusal in refused.items()),
    )


def preferences(call: Call) -> tuple[tuple[str, ...], str]:
    """The backends that have kernels for the operation, the preferred first, and why.

    Those that were measured stand in the order of their times, in the places that the rule gives them.
    """
    places = {name: registry()[name].preference(call) for name in offering(call.operation)}
    order = tuple(sorted(places, key=lambda name: -places[name].place))
    why = places[order[0]].why
    reason = f"by rule: {', '.join(order)}" + (f", {why}" if why else "")
    # Times of unlike codes do not compare at one shape: how codes lie is decided by the means of the whole format.
    for asked in (call, call._replace(shape=None)):
        found = measured(asked)
        if found is None:
            break
        timed = sorted((name for name in order if name in found.times), key=found.times.__getitem__)
        wanting = [_wants(name, call) for name in timed]
        if len(timed) > 1 and (all(wanting) or (asked.shape is None and wanting[0])):
            fastest = iter(timed)
            return tuple(next(fastest) if name in timed else name for name in order), found.source
    return order, reason


def _wants(backend: str, call: Call) -> bool:
    """Whether activation codes that lie as the call's do are those that the backend would make for itself."""
    if call.packed is None or call.x_bits is None:
        return True
    return registry()[backend].packs(call.place, call.x_bits) == call.packed


def packs(place: Place, bits: int, backend: str, dtype: torch.dtype | None = None) -> bool:
    """Whether activations of ``bits`` bits are packed for the linears that will take them.

    Their shapes are not known yet: it is what the backend wants that is preferred for the whole format.
    """
    if backend != "auto":
        return backend in registry() and registry()[backend].packs(place, bits)
    return select(Call("quantized_linear", place, x_bits=bits, dtype=dtype)).backend.packs(place, bits)


_packs = remembered(packs)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def packs_on(device: torch.device, bits: int, backend: str, dtype: torch.dtype) -> bool:
    """:func:`packs` on a device that is here, known when a graph is compiled."""
    return _packs(place_of(device), bits, backend, dtype)
