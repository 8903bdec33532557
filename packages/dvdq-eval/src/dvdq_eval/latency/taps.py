"""One pass taken apart: marks around every linear that recipes quantize, and around every call of attention.

A linear's time is cut where its activations are ready: before it they are smoothed, rotated and quantized, after it
codes are multiplied. Q, K and V share one quantization, which whoever comes first pays for; the others find it done.
Attention is caught where diffusers looks up the backend, so it is caught whichever backend runs;
that of the text alone, inside an embedder, does not pass there.

A mark is a reading of the clock, on a GPU an event in its stream. Three a linear and two a call of attention add to the
pass, and hooks add Python to it, which shows on a CPU and in small models. So a pass taken apart tells shares, and only
an untouched one tells how long a pass takes. What the marks cost falls mostly between the pieces: in the rest.

A clock sets the marks while work is handed to a device, and reads them once the device is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import nn

from dvdq_models.families import family_of
from dvdq_models.layers.linear import QuantizedLinear


class Clock(Protocol):
    """Sets marks while work is handed to a device, and reads them once the device is done."""

    def mark(self) -> Any:
        """The moment at which the device has done all that it was given so far."""

    def settle(self) -> None:
        """Wait for the device."""

    def seconds(self, start: Any, end: Any) -> float:
        """From one mark to another, after :meth:`settle`."""


class HostClock:
    """The clock of a device that works while it is called: a CPU."""

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def settle(self) -> None:
        """Nothing is ever outstanding."""

    def seconds(self, start: float, end: float) -> float:
        """The difference."""
        return end - start


class CudaClock:
    """CUDA events in the stream that computes: marks cost it about a microsecond, and nobody waits for them."""

    def mark(self) -> torch.cuda.Event:
        """An event behind all that the stream was given."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Wait for the whole device."""
        torch.cuda.synchronize()

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """What the device counted."""
        return float(start.elapsed_time(end)) / 1e3


def clock_of(device: torch.device) -> Clock:
    """The clock for what runs on ``device``."""
    return CudaClock() if device.type == "cuda" else HostClock()


@dataclass(frozen=True)
class Piece:
    """What one linear did in a pass: the rows it multiplied, and its seconds before and after they were ready."""

    tokens: int
    rotate_quantize: float
    product: float


@dataclass(frozen=True)
class Dissection:
    """The seconds of one pass: of each linear by name, in the order in which they ran, of attention, and of it all."""

    layers: Mapping[str, Piece]
    attention: float
    total: float

    @property
    def rotate_quantize(self) -> float:
        """Until activations were ready, in all linears."""
        return sum(piece.rotate_quantize for piece in self.layers.values())

    @property
    def products(self) -> float:
        """After they were, in all linears."""
        return sum(piece.product for piece in self.layers.values())

    @property
    def rest(self) -> float:
        """What is neither in a linear nor in attention."""
        return self.total - self.rotate_quantize - self.products - self.attention


def counted_linears(transformer: nn.Module) -> dict[str, nn.Module]:
    """The quantized linears by name; in full precision, those that the family's rules would quantize."""
    quantized = {name: layer for name, layer in transformer.named_modules() if isinstance(layer, QuantizedLinear)}
    if quantized:
        return dict(quantized)
    treatments = family_of(transformer).treatments(transformer)
    return {name: transformer.get_submodule(name) for name, treatment in treatments.items() if treatment != "keep"}


def dissect(transformer: nn.Module, call: Callable[[], object], clock: Clock) -> Dissection:
    """Run ``call``, one pass of ``transformer``, and take its time apart; the model is left as it was.

    A compiled one runs as if it were not: there are no marks inside its graphs.
    """
    with torch.compiler.set_stance("force_eager"), _tapped(transformer, clock) as marks:
        clock.settle()
        start = clock.mark()
        call()
        end = clock.mark()
        clock.settle()
    layers = {
        name: Piece(visit.tokens, clock.seconds(visit.start, visit.ready), clock.seconds(visit.ready, visit.end))
        for name, visit in marks.visits.items()
    }
    attention = sum(clock.seconds(*pair) for pair in marks.attention)
    return Dissection(layers, attention, clock.seconds(start, end))


@dataclass
class _Visit:
    """The marks of one linear; without anything to prepare, its activations are ready as it starts."""

    tokens: int
    start: Any
    ready: Any
    end: Any = None


@dataclass
class _Marks:
    visits: dict[str, _Visit] = field(default_factory=dict)
    attention: list[tuple[Any, Any]] = field(default_factory=list)
    inside: _Visit | None = None


@contextmanager
def _tapped(transformer: nn.Module, clock: Clock) -> Iterator[_Marks]:
    marks, linears = _Marks(), counted_linears(transformer)
    backends = _AttentionBackendRegistry._backends
    with ExitStack() as taps:
        for name, layer in linears.items():
            taps.callback(layer.register_forward_pre_hook(_start(name, marks, clock)).remove)
            taps.callback(layer.register_forward_hook(_end(marks, clock)).remove)
        for state in {layer.state for layer in linears.values() if isinstance(layer, QuantizedLinear)}:
            vars(state)["quantize"] = _ready(state.quantize, marks, clock)
            taps.callback(vars(state).pop, "quantize")
        taps.callback(backends.update, dict(backends))
        backends.update({name: _around(backend, marks, clock) for name, backend in backends.items()})
        yield marks


def _start(name: str, marks: _Marks, clock: Clock) -> Callable[..., None]:
    def start(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        now = clock.mark()
        marks.visits[name] = marks.inside = _Visit(inputs[0].shape[:-1].numel(), now, now)

    return start


def _ready(quantize: Callable[..., Any], marks: _Marks, clock: Clock) -> Callable[..., Any]:
    def ready(*args: Any) -> Any:
        quantized = quantize(*args)
        assert marks.inside is not None
        marks.inside.ready = clock.mark()
        return quantized

    return ready


def _end(marks: _Marks, clock: Clock) -> Callable[..., None]:
    def end(module: nn.Module, inputs: object, output: object) -> None:
        assert marks.inside is not None
        marks.inside.end = clock.mark()

    return end


def _around(attend: Callable[..., Any], marks: _Marks, clock: Clock) -> Callable[..., Any]:
    def around(*args: Any, **kwargs: Any) -> Any:
        start = clock.mark()
        output = attend(*args, **kwargs)
        marks.attention.append((start, clock.mark()))
        return output

    return around
