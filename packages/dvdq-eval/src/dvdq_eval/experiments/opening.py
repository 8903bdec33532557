"""A study and its methods from what a command was given."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvdq_eval.experiments.configuration import FULL_PRECISION, Configuration
from dvdq_eval.experiments.study import CALIBRATION_VIDEOS, Study
from dvdq_eval.methods import LABELS
from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.running.placement import Offload, check_offload
from dvdq_models.running.prompts import read_prompts
from dvdq_reference.spec.errors import DvdqError


def open_study(
    operation: str,
    pipeline: str,
    *,
    videos: int,
    samples: int = 1,
    steps: int | None = None,
    prompts: Path | None = None,
    preparing: Path | None = None,
    settings: str | None = None,
    device: str = "cpu",
    offload: Offload = Offload.NONE,
) -> Study:
    """The study of a bundled pipeline by name, or of a folder on prompts of one's own.

    Args:
        operation: for errors.
        pipeline: ``wan``, ``hunyuan-video``, or a folder.
        videos: how many prompts; of a file, the first.
        samples: videos of each prompt, each from noise of its own.
        steps: denoising steps; None leaves the pipeline's.
        prompts, preparing: files with one prompt a line, for a folder alone; without the second, the last of the
            first, as far as they are not measured, prepare.
        settings: further arguments of the pipeline's call, as a JSON object.
        device: that runs it.
        offload: what waits in the computer's memory.
    """
    check_offload(operation, device, offload)
    if pipeline in BUNDLED:
        if given := [name for name, value in (("prompts", prompts), ("preparing", preparing)) if value is not None]:
            raise DvdqError(operation, where=f"--{given[0]}", expected="none for a bundled pipeline", got="a file")
        study = Study.bundled(pipeline, videos, device=device, samples=samples)
        call = {**study.settings, **read_settings(operation, settings, steps)}
        return dataclasses.replace(study, settings=call, offload=offload)
    if prompts is None:
        raise DvdqError(operation, where=pipeline, expected="--prompts for a pipeline that is not bundled", got="none")
    asked = read_prompts(operation, prompts)
    # From the end, so that another number of videos does not make other methods.
    others = asked[videos:][-CALIBRATION_VIDEOS:] if preparing is None else read_prompts(operation, preparing)
    call = read_settings(operation, settings, steps)
    study = Study.of(Path(pipeline), asked[:videos], others, call, device, samples)
    return dataclasses.replace(study, offload=offload)


def read_settings(operation: str, text: str | None, steps: int | None) -> dict[str, Any]:
    """Arguments of a pipeline's call from a JSON object, its denoising steps replaced if ``steps`` is given."""
    try:
        settings = {} if text is None else json.loads(text)
    except ValueError as error:
        raise DvdqError(operation, where="--settings", expected="JSON", got=str(error)) from error
    if not isinstance(settings, dict):
        raise DvdqError(operation, where="--settings", expected="an object", got=text)
    return settings if steps is None else settings | {"num_inference_steps": steps}


def parse_methods(operation: str, names: Sequence[str]) -> tuple[Configuration, ...]:
    """Full precision, and what ``names`` say as ``RECIPE:BITS``, e.g. ``dvd-quant:W4A4``; each once, in their order."""
    found = [FULL_PRECISION]
    for name in names:
        recipe, _, bits = name.partition(":")
        if not bits:
            raise DvdqError(operation, where="--method", expected="RECIPE:BITS, e.g. dvd-quant:W4A4", got=repr(name))
        found.append(Configuration.named(LABELS.get(recipe, recipe), recipe, bits))
    return tuple(dict.fromkeys(found))
