"""A case, which is random inputs of one shape; a provider, which is somebody who can do an operation; and its job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from benchmarks.measuring.gpu import Work
from benchmarks.measuring.workloads import Shape


@dataclass(frozen=True)
class Case:
    """Normal inputs of one shape, drawn when first asked for, of the same size as those of real layers.

    Their values are bfloat16's in every ``dtype``.
    """

    shape: Shape
    device: torch.device
    seed: int = 0
    dtype: torch.dtype = torch.bfloat16

    @cached_property
    def x(self) -> torch.Tensor:
        """Activations ``[tokens, in]``."""
        return self._normal(self.shape[0], self.shape[-1])

    @cached_property
    def weight(self) -> torch.Tensor:
        """A weight ``[out, in]``."""
        return self._normal(self.shape[-2], self.shape[-1]) * 0.02

    def work(self, *, x_bytes: float, weight_bytes: float, out_bytes: float = 2, unit: str = "int8") -> Work:
        """That of a linear, by the bytes of an activation, of a weight and of an output."""
        tokens, out_features, in_features = self.shape
        moved = x_bytes * tokens * in_features + weight_bytes * out_features * in_features
        return Work(int(moved + out_bytes * tokens * out_features), 2 * tokens * out_features * in_features, unit)

    def _normal(self, *size: int) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        return torch.randn(size, generator=generator, dtype=torch.bfloat16, device=self.device).to(self.dtype)


@dataclass(frozen=True)
class Job:
    """A call to be timed, what its output has to pass first, and the least that it does."""

    call: Callable[[], Any]
    check: Callable[[Any], None]
    work: Work
    note: str = ""


@dataclass(frozen=True)
class Provider:
    """Somebody who can do the operation. ``package`` is what a peer is installed as; ours have none.

    ``build`` makes the call for a case, and imports what it needs: it may raise where a peer cannot run.
    """

    name: str
    variant: str
    build: Callable[[Case], Job]
    package: str | None = None
