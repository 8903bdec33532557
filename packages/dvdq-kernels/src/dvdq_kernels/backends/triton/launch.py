"""Starting a kernel, or only writing down that it would be started.

Every kernel of this backend is started through :func:`launch`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton

from dvdq_kernels.backends.triton.target import target_of
from dvdq_kernels.gpu import recorded

_FITS_TENSOR_MEMORY = tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 9)
_NO_TENSOR_MEMORY = "DISABLE_MMA_V5"
_TILE = ("BLOCK_M", "BLOCK_N", "BLOCK_K")


@dataclass(frozen=True)
class Launch:
    """One kernel with its arguments by name; tensors among ``arguments`` may be on the meta device."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def description(self) -> str:
        """The kernel, its tile, warps and stages, e.g. ``integer_product 128×256×128, 8 warps, 4 stages``."""
        tile = "×".join(str(self.constants[name]) for name in _TILE if name in self.constants)
        words = [f"{self.kernel.__name__.strip('_')} {tile}".strip(), f"{self.warps} warps", f"{self.stages} stages"]
        return ", ".join(words)


def options(warps: int, stages: int) -> dict[str, int | bool]:
    """What the compiler is told. Fused multiply-adds are asked for by name: Triton is about to change its default."""
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}


@contextmanager
def compiling_for(target: int) -> Iterator[None]:
    """In a ``with`` block, Triton does for ``target`` without what it gets wrong there.

    For 10.x it puts all sums of a rotation into tensor memory and, before 3.9, compiles a trap where they do not fit.
    Then it multiplies as on 8.0, which it is told by an environment variable, as there is no option for it.
    """
    if _FITS_TENSOR_MEMORY or target // 10 != 10:
        yield
        return
    before = os.environ.get(_NO_TENSOR_MEMORY)
    os.environ[_NO_TENSOR_MEMORY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_TENSOR_MEMORY]
        else:
            os.environ[_NO_TENSOR_MEMORY] = before


def held_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which dtype a kernel multiplies and stores what is of ``dtype``; a result is cast to it afterwards.

    It is ``dtype`` on a GPU. Triton's interpreter multiplies the bits of a bfloat16 and, where a GPU rounds to the
    nearest, cuts bits off: there it is float32, which holds every product of two bfloat16, and torch rounds.
    """
    return torch.float32 if dtype == torch.bfloat16 and triton.knobs.runtime.interpret else dtype


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 3,
    note: str = "",
) -> None:
    """Start ``kernel`` on the device and stream of its first tensor, unless its grid is empty.

    Args:
        kernel: a ``triton.jit`` function.
        grid: programs along up to three axes.
        arguments: run-time arguments by name; at least one tensor.
        constants: ``tl.constexpr`` arguments by name.
        warps: warps a program.
        stages: software-pipelining depth.
    """
    if 0 in grid:
        return
    record = recorded()
    if record is not None:
        record.launches.append(Launch(kernel, grid, arguments, constants, warps, stages))
        return
    device = next(a.device for a in arguments.values() if isinstance(a, torch.Tensor))
    current = torch.cuda.device(device if device.type == "cuda" else -1)  # a negative one changes nothing
    with current, compiling_for(target_of(device)):
        kernel[grid](**arguments, **constants, **options(warps, stages))
