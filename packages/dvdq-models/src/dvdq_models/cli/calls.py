"""A call of a pipeline from the options of a command, by what its family says of its class."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import load_image

from dvdq_models.families import call_of, family_of
from dvdq_models.families.family import OPTIONS, patch_of
from dvdq_models.families.pipelines import compression_of
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError


def call_arguments(operation: str, pipeline: Any, prompt: str, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of ``pipeline``; options that are None keep the pipeline's own defaults.

    Args:
        operation: for errors.
        pipeline: of a class that its family knows how to call.
        prompt: what to show.
        seed: of the noise.
        options: of the command; those in :data:`~dvdq_models.families.family.OPTIONS` are looked at.

    Raises:
        DvdqError: a pipeline class that is unknown or takes what no option gives, an option that it has no argument
            for, a seed that is out of range, an image that is missing or none.
    """
    for option, text in (("--prompt", prompt), ("--negative-prompt", options.get("negative_prompt") or "")):
        if any(0xD800 <= ord(character) < 0xE000 for character in text):
            raise DvdqError(operation, where=option, expected="text in UTF-8", got=repr(text))
    name = type(pipeline).__name__
    call = call_of(operation, name)
    if call.needs:
        raise DvdqError(operation, where=name, expected="a call from Python", got=f"a pipeline that takes {call.needs}")
    arguments: dict[str, Any] = {"prompt": prompt, "generator": _generator(operation, seed)}
    for option in OPTIONS:
        value = options.get(option)
        if value is None or (value == "" and option not in call.names):
            continue
        if option not in call.names:
            flag = f"--{option.replace('_', '-')}"
            raise DvdqError(operation, where=flag, expected=f"an option of {name}", got=value)
        if isinstance(value, float) and not math.isfinite(value):
            flag = f"--{option.replace('_', '-')}"
            raise DvdqError(operation, where=flag, expected="a finite number", got=value)
        arguments[call.names[option]] = _open(operation, value) if option == "image" else value
    if "image" in call.names and "image" not in arguments:
        raise DvdqError(operation, where="--image", expected=f"the first frame, for {name}", got="none")
    if call.prompt_alone and "text_tokens" in call.names and options.get("text_tokens") is None:
        longest = default_of(pipeline, call.names["text_tokens"])
        arguments[call.names["text_tokens"]] = min(longest, pipeline.tokenizer.model_max_length)
    return arguments


def video_size(pipeline: Any, arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """Frames, height and width of the video that a call with ``arguments`` makes."""
    frames, height, width = (
        arguments.get(name, default_of(pipeline, name)) for name in ("num_frames", "height", "width")
    )
    return frames, height, width


def check_call(operation: str, pipeline: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse a call that the pipeline would refuse, or whose size it would round.

    Raises:
        DvdqError: a size that is no multiple of what a token takes, or what the pipeline looks at first.
    """
    frames, height, width = video_size(pipeline, arguments)
    autoencoder = {} if getattr(pipeline, "vae", None) is None else pipeline.vae.config
    temporal, spatial = compression_of(autoencoder, family_of(pipeline.transformer))
    multiple = spatial * patch_of(pipeline.transformer.config)[1]
    for option, size in (("--height", height), ("--width", width)):
        if size % multiple:
            raise DvdqError(operation, where=option, expected=f"a multiple of {multiple}", got=size)
    if (frames - 1) % temporal:
        raise DvdqError(operation, where="--frames", expected=f"1 more than a multiple of {temporal}", got=frames)
    call = inspect.signature(pipeline.__call__).parameters
    given = {
        name: arguments.get(name, call[name].default if name in call else parameter.default)
        for name, parameter in inspect.signature(pipeline.check_inputs).parameters.items()
    }
    try:
        pipeline.check_inputs(**given)
    except (TypeError, ValueError) as error:
        expected = f"arguments that {type(pipeline).__name__} takes"
        raise DvdqError(operation, expected=expected, got=one_line(error)) from error


def _generator(operation: str, seed: int) -> torch.Generator:
    try:
        return torch.Generator().manual_seed(seed)
    except (OverflowError, RuntimeError, ValueError) as error:
        raise DvdqError(operation, where="--seed", expected="an integer of 64 bits", got=seed) from error


def default_of(pipeline: Any, argument: str) -> Any:
    """The default of an argument of a pipeline's call."""
    return inspect.signature(pipeline.__call__).parameters[argument].default


def _open(operation: str, path: Path) -> Any:
    try:
        return load_image(str(path))
    # PIL has errors of its own for images that are too large, among others.
    except Exception as error:
        raise DvdqError(operation, where="--image", expected="an image file", got=str(path)) from error
