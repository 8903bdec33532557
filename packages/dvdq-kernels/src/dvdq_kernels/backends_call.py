"""``dvdq_kernels.backends()``, which does not hide the folder from ``import dvdq_kernels.backends.torch``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dvdq_kernels import registry


class _Backends:
    """Called, what :func:`dvdq_kernels.registry.backends` says; its attributes are the folder's modules."""

    def __call__(self) -> dict[str, str | None]:
        """Every backend by name: None if it can run on this machine, else the reason why not."""
        return registry.backends()

    def __getattr__(self, name: str) -> Any:
        try:
            return import_module(f"dvdq_kernels.backends.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"dvdq_kernels.backends has no {name!r}") from error


backends = _Backends()
