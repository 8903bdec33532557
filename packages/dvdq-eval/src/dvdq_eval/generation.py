"""One video out of a diffusers text-to-video pipeline, with the latents that it was decoded from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True)
class Generated:
    """A video: ``frames`` ``[frames, height, width, 3]`` in ``[0, 1]`` and ``latents`` ``[channels, time, h, w]``."""

    frames: NDArray[np.float32]
    latents: NDArray[np.float32]


def generate(pipeline: Any, prompt: str, *, seed: int, settings: Mapping[str, Any]) -> Generated:
    """Run ``pipeline`` once from the noise of ``seed``; ``settings`` are its keyword arguments."""
    latents: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents[:] = [values["latents"]]
        return values

    frames = pipeline(
        prompt=prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        callback_on_step_end=keep,
        **settings,
    ).frames[0]
    return Generated(np.asarray(frames, dtype=np.float32), latents[0][0].float().cpu().numpy())


@contextmanager
def passes_timed(transformers: Iterable[nn.Module]) -> Iterator[list[float]]:
    """The seconds of every pass of ``transformers`` inside the block, in order, until the call returns."""
    seconds: list[float] = []
    started = 0.0

    def before(*_: object) -> None:
        nonlocal started
        started = time.perf_counter()

    def after(*_: object) -> None:
        seconds.append(time.perf_counter() - started)

    with ExitStack() as handles:
        for transformer in transformers:
            for handle in (transformer.register_forward_pre_hook(before), transformer.register_forward_hook(after)):
                handles.callback(handle.remove)
        yield seconds
