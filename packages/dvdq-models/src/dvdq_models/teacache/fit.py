"""Fitting the polynomial to a pipeline: how much the output changed, given how much the signal did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from torch import nn

from dvdq_models.families.family import Signal
from dvdq_models.switching.hook import relative_change
from dvdq_models.teacache.coefficients import DEGREE, Coefficients
from dvdq_models.teacache.enable import attach, check_signal, disable_teacache
from dvdq_models.teacache.hooks import TeaCacheHook
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Changes:
    """Relative L1 changes from one step to the next, ``[pairs]`` each, of the steps that TeaCache may skip.

    Attributes:
        signal: of what TeaCache looks at.
        output: of the transformer's output.
        kind: which signal.
        warm_up: first steps that were left out.
        prompts: how many videos.
        steps: of each video.
    """

    signal: NDArray[np.float64]
    output: NDArray[np.float64]
    kind: Signal
    warm_up: int
    prompts: int
    steps: int


class _Recorder(TeaCacheHook):
    """Computes every step and measures the output after it."""

    def __init__(self, signal: Signal, warm_up: int, pipeline: Any) -> None:
        zero = Coefficients("recording", (0.0,) * (DEGREE + 1), signal, warm_up)
        super().__init__(0.0, zero, pipeline)
        self.pairs: list[tuple[float, float]] = []
        self._outputs: dict[str, torch.Tensor] = {}

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        """Pairs the change of the output with that of the signal."""
        decision, current = self.trace[-1], output[0].detach()
        if decision.accumulated is not None:
            assert decision.distance is not None
            self.pairs.append((decision.distance, relative_change(current, self._outputs[decision.name])))
        self._outputs[decision.name] = current
        return super().post_forward(module, output)


def record_changes(
    pipeline: Any,
    prompts: Sequence[str],
    *,
    signal: Signal | None = None,
    warm_up: int = 1,
    seed: int = 0,
    **generation: Any,
) -> Changes:
    """Generate a video a prompt, without skipping, and record what changed from step to step.

    Args:
        pipeline: a pipeline with a transformer of a known class, in any precision; TeaCache is off afterwards.
        prompts: as unlike one another as those that will be used.
        signal: one that the transformer's family names, e.g. ``"timestep"`` for Wan and ``"modulated-input"`` for
            HunyuanVideo; None takes the first.
        warm_up: first steps that will always be computed, and so are left out of the fit.
        seed: of the first video's noise; each video has its own.
        generation: arguments of the pipeline's call, e.g. ``num_inference_steps=50``.
    """
    kind = check_signal(pipeline.transformer, signal)
    recorder = _Recorder(kind, warm_up, pipeline)
    attach(pipeline.transformer, recorder)
    try:
        for index, prompt in enumerate(prompts):
            generator = torch.Generator().manual_seed(seed + index)
            pipeline(prompt=prompt, generator=generator, output_type="latent", **generation)
    finally:
        disable_teacache(pipeline.transformer)
    pairs = np.asarray(recorder.pairs, dtype=np.float64).reshape(-1, 2)
    steps = 1 + max((decision.step for decision in recorder.trace), default=-1)
    return Changes(pairs[:, 0], pairs[:, 1], kind, warm_up, len(prompts), steps)


def fit_coefficients(
    changes: Changes, name: str, *, architecture: Mapping[str, Any] | None = None, **provenance: Any
) -> Coefficients:
    """The polynomial of degree 4 nearest to ``changes`` in least squares.

    Args:
        changes: of :func:`record_changes`.
        name: of the result.
        architecture: entries of the model's ``config.json`` that recognize it.
        provenance: further JSON-ready facts to keep beside the number of prompts, steps and pairs and the residual (the
            root mean square of what the polynomial misses).

    Raises:
        DvdqError: fewer than five different changes of the signal, or one that is not finite.
    """
    if not (np.isfinite(changes.signal).all() and np.isfinite(changes.output).all()):
        raise DvdqError("fit_coefficients", expected="finite changes", got="NaN or Inf")
    distinct = len(np.unique(changes.signal))
    if distinct <= DEGREE:
        raise DvdqError("fit_coefficients", expected=f"at least {DEGREE + 1} different changes", got=distinct)
    polynomial = Polynomial.fit(changes.signal, changes.output, DEGREE)
    values = polynomial.convert().coef
    missed = float(np.sqrt(np.mean((polynomial(changes.signal) - changes.output) ** 2)))
    facts = {
        "prompts": changes.prompts,
        "steps": changes.steps,
        "pairs": len(changes.signal),
        "residual": missed,
        "signal_range": [float(changes.signal.min()), float(changes.signal.max())],
    }
    padded = np.zeros(DEGREE + 1)
    padded[: len(values)] = values
    return Coefficients(
        name,
        tuple(float(value) for value in padded[::-1]),
        changes.kind,
        changes.warm_up,
        architecture=architecture,
        provenance={**provenance, **facts},
    )
