"""What a backend says of itself, in its folder's ``__init__``, which imports nothing that a machine may lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dvdq_kernels.call import Call, Place

FAST_GRIDS = frozenset({"minmax", "bgr"})
"""QuaRot's clip search serves a baseline, which is quantized once: that of plain PyTorch is enough."""


class Preference(NamedTuple):
    """A backend's place in the rule, for calls that nobody measured: the highest goes first, and why, if that is told.

    Plain PyTorch has place 0.
    """

    place: int
    why: str = ""


class Step(NamedTuple):
    """One of a backend's operators, and its arguments on the meta device."""

    operator: Callable[..., Any]
    arguments: tuple[Any, ...]


def _names(place: Place, steps: Sequence[Step]) -> list[str]:
    return [step.operator.__name__ for step in steps]


@dataclass(frozen=True)
class Backend:
    """One backend, e.g. ``Backend("torch", load=…)``.

    Args:
        name: what ``backend=`` calls it, and its folder's.
        load: imports it and gives its operators: the functions that :mod:`dvdq_kernels.ops` states, by name.
        refusal: why it cannot run on this machine, or None if it can; must be cheap and must not raise.
        absence: why it cannot tell its launches on a GPU that need not be here, or None if it can; None where there is
            nothing to tell.
        device_types: types of device whose tensors it takes; None for any.
        offers: the public functions that it has kernels for; None for all.
        grids: the weight grids that it has kernels for; None for all.
        takes_packed: whether it makes and multiplies activation codes that lie two a byte.
        limits: why it cannot run one call among those, by its dtype or sizes, or None if it can.
        packs: whether its product wants codes of some bits two a byte, on a device.
        preference: its place in the rule for a call.
        for_checks: whether it is slower here than plain PyTorch, so that only who asks for it by name gets it.
        describe: what some of its operators would start at a place, in words.
    """

    name: str
    load: Callable[[], Any]
    refusal: Callable[[], str | None] = lambda: None
    absence: Callable[[], str | None] | None = None
    device_types: Callable[[], frozenset[str]] | None = None
    offers: frozenset[str] | None = None
    grids: frozenset[str] | None = None
    takes_packed: bool = False
    limits: Callable[[Call], str | None] = lambda call: None
    packs: Callable[[Place, int], bool] = lambda place, bits: False
    preference: Callable[[Call], Preference] = lambda call: Preference(0)
    for_checks: Callable[[], bool] = lambda: False
    describe: Callable[[Place, Sequence[Step]], list[str]] = _names

    def has(self, operation: str, grid: str | None = None) -> bool:
        """Whether it has kernels for a public function, and a weight's ``grid``, whether they can run here or not."""
        return (self.offers is None or operation in self.offers) and (
            grid is None or self.grids is None or grid in self.grids
        )

    def refuses(self, call: Call) -> str | None:
        """Why it cannot run ``call``, or None if it can."""
        place = call.place
        reason = self.refusal() if place.here else "tells no launches" if self.absence is None else self.absence()
        if reason is not None:
            return reason
        types = None if self.device_types is None or not place.here else self.device_types()
        if types is not None and place.type not in types:
            return f"runs on {', '.join(sorted(types))}, not on {place.type}"
        if not self.has(call.operation):
            return f"has {', '.join(sorted(self.offers or ()))} alone"
        if not self.has(call.operation, call.grid):
            return f"has the grids {', '.join(sorted(self.grids or ()))}, not {call.grid}"
        if call.packed and not self.takes_packed:
            return "takes activation codes a byte each, not two a byte"
        return self.limits(call)
