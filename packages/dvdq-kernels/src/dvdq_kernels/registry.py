"""Which backends there are. Each says of itself what it can do; its operators are imported when first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

import dvdq_kernels.backends as _folder
from dvdq_kernels.backend import Backend
from dvdq_reference.spec.errors import DvdqError

_NAMES = ("cupy", "triton", "cpu", "torch")
"""Folders of ``backends``."""

_BACKENDS: dict[str, Backend] = {name: import_module(f"{_folder.__name__}.{name}").BACKEND for name in _NAMES}


class _Backends(ModuleType):
    """The folder, which can be called: ``dvdq_kernels.backends()`` and ``dvdq_kernels.backends.torch`` are one name."""

    def __call__(self) -> dict[str, str | None]:
        """Every backend by name: None if it can run on this machine, else the reason why not.

        >>> backends()["torch"] is None
        True
        """
        return {name: backend.refusal() for name, backend in _BACKENDS.items()}


_folder.__class__ = _Backends
backends = cast(Callable[[], dict[str, str | None]], _folder)


def offering(operation: str, grid: str | None = None) -> tuple[str, ...]:
    """The backends that have kernels for ``operation``, and a weight's ``grid``, whether they can run here or not."""
    return tuple(name for name, backend in _BACKENDS.items() if backend.has(operation, grid))


def registry() -> dict[str, Backend]:
    """Every backend by name."""
    return _BACKENDS


def operators(name: str) -> Any:
    """The functions of a backend that was selected."""
    return _BACKENDS[name].load()


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
_MOST_REMEMBERED = 4096
_remembered: list[Any] = []


def remembered(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``function`` with its results kept, until the registry changes or they are to :func:`forget`."""
    kept = lru_cache(_MOST_REMEMBERED)(function)
    _remembered.append(kept)
    return cast(Callable[Parameters, Result], kept)


def forget() -> None:
    """Ask again what depends on this machine, such as environment variables that a backend reads."""
    for function in _remembered:
        function.cache_clear()


@contextmanager
def registered(backend: Backend) -> Iterator[Backend]:
    """A further backend, asked for by name, for the length of a ``with`` block."""
    if backend.name in _BACKENDS:
        raise DvdqError("registered", expected="a name that is not taken", got=backend.name)
    _BACKENDS[backend.name] = backend
    forget()
    try:
        yield backend
    finally:
        del _BACKENDS[backend.name]
        forget()
