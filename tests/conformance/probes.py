"""A kernel of a few lines around one instruction, emulated or on the GPU at hand."""

from __future__ import annotations

from typing import Any

import torch

from conformance.test_backends import places
from dvdq_kernels.backends.cupy.target import target_of

DEVICES = [device for backend, device in places("quantized_linear") if backend == "cupy"]
HOPPER = [device for device in DEVICES if target_of(torch.device(device)) == 90]


def run(source: str, arguments: tuple[Any, ...], device: str, *, threads: int, shared: int = 0) -> None:
    """Start one block of the kernel ``probe``; tensors lie on the CPU, and are there what it made of them."""
    if device == "cpu":
        from dvdq_kernels.backends.cupy import emulation

        emulation.run("probe", source, arguments, 1, threads, shared)
        return
    import cupy
    import numpy as np

    from dvdq_kernels.backends.cupy.cubin import cubin

    there = [a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
    function = cupy.RawModule(path=str(cubin(source, target_of(torch.device(device))))).get_function("probe")
    given = tuple(np.uint64(a.data_ptr()) if isinstance(a, torch.Tensor) else a for a in there)
    with cupy.cuda.Stream.from_external(torch.cuda.current_stream()):
        function((1,), (threads,), given, shared_mem=shared)
    for argument, found in zip(arguments, there, strict=True):
        if isinstance(argument, torch.Tensor):
            argument.copy_(found)
