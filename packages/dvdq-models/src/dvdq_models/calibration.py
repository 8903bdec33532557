"""Calibration: the largest magnitude that each input channel of each quantized linear reaches while videos are made.

``max |X_j|`` over prompts, steps and tokens is all that SmoothQuant and ViDiT-Q need to know of the data. It is a
running maximum, so memory holds one number a channel however many videos there are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dvdq_models.families import family_of
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.files.atomic import new_file
from dvdq_models.files.destinations import check_new_file
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.errors import DvdqError

_KIND = "dvd-quant calibration"
_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was recorded, e.g. ``calibration.of("transformer")["blocks.0.attn1.to_q"]`` float32 ``[in]``.

    Attributes:
        maxima: by ``<transformer>.<layer>``, on the CPU.
        prompts: of the videos.
        passes: forward passes that were watched, of all transformers together.
        seconds: that making the videos took.
    """

    maxima: Mapping[str, torch.Tensor]
    prompts: tuple[str, ...]
    passes: int
    seconds: float

    def of(self, transformer: str) -> dict[str, torch.Tensor]:
        """The maxima of one transformer of the pipeline by layer, as :func:`dvdq_models.quantize` takes them."""
        prefix = f"{transformer}."
        found = {name.removeprefix(prefix): t for name, t in self.maxima.items() if name.startswith(prefix)}
        if not found:
            recorded = sorted({name.partition(".")[0] for name in self.maxima})
            raise DvdqError("calibration", where=transformer, expected="its maxima", got=f"those of {recorded}")
        return found

    def digest(self) -> str:
        """SHA-256 of names and values."""
        total = hashlib.sha256()
        for name in sorted(self.maxima):
            total.update(name.encode() + b"\0" + self.maxima[name].contiguous().numpy().tobytes())
        return total.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, at once or not at all."""
        path = Path(path)
        metadata = {
            "kind": _KIND,
            "format": _FORMAT,
            "prompts": json.dumps(self.prompts),
            "passes": str(self.passes),
            "seconds": repr(self.seconds),
        }
        check_new_file("calibration", path, (), replace=True)
        with new_file(path) as part:
            save_file(dict(self.maxima), part, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """What :meth:`save` wrote; any other file is a :class:`DvdqError`."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                maxima = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except (OSError, SafetensorError) as error:
            expected = "a file that dvdq calibrate wrote"
            raise DvdqError("calibration", where=str(path), expected=expected, got=str(error)) from error
        if (metadata.get("kind"), metadata.get("format")) != (_KIND, _FORMAT):
            expected, got = f"{_KIND}, format {_FORMAT}", f"{metadata.get('kind')}, format {metadata.get('format')}"
            raise DvdqError("calibration", where=str(path), expected=expected, got=got)
        try:
            prompts = tuple(json.loads(metadata["prompts"]))
            return cls(maxima, prompts, int(metadata["passes"]), float(metadata["seconds"]))
        except (KeyError, ValueError) as error:
            expected = "prompts, passes and seconds beside the tensors"
            raise DvdqError("calibration", where=str(path), expected=expected, got=repr(error)) from error


def calibrate(pipeline: Any, videos: Sequence[tuple[str, Callable[[], Any]]]) -> Calibration:
    """Make videos with a pipeline in full precision and record what its linears are given.

    Args:
        pipeline: one whose transformers are of known families; it is left as it came.
        videos: prompts, each with what makes its video with ``pipeline``.

    Raises:
        DvdqError: no transformer of a known family, one that is quantized already, no video, or activations with NaN or
            Inf (the layer is named).
    """
    if not videos:
        raise DvdqError("calibrate", expected="at least one prompt", got="none")
    recorder, started = _Recorder(), time.perf_counter()
    transformers = transformers_of(pipeline)
    if not transformers:
        raise DvdqError("calibrate", expected="a pipeline with a transformer", got=type(pipeline).__name__)
    with ExitStack() as watching:
        for name, transformer in transformers.items():
            watching.enter_context(recorder.watching(name, transformer))
        for _, make in videos:
            make()
    seconds = time.perf_counter() - started
    maxima = {name: tensor.cpu() for name, tensor in recorder.maxima.items()}
    for name, tensor in maxima.items():
        if not bool(tensor.isfinite().all()):
            raise DvdqError(f"calibrate: {name}", expected="finite activations", got="NaN or Inf")
    return Calibration(maxima, tuple(prompt for prompt, _ in videos), recorder.passes, seconds)


class _Recorder:
    """Running maxima of the inputs of watched linears."""

    def __init__(self) -> None:
        self.maxima: dict[str, torch.Tensor] = {}
        self.passes = 0

    @contextmanager
    def watching(self, name: str, transformer: nn.Module) -> Iterator[None]:
        """Record every linear of ``transformer`` whose activations a recipe would quantize."""
        if any(isinstance(module, QuantizedLinear) for module in transformer.modules()):
            raise DvdqError("calibrate", where=name, expected="a model in full precision", got="a quantized one")
        with ExitStack() as handles:
            for layer, treatment in family_of(transformer).treatments(transformer).items():
                if treatment == "quantize":
                    hook = partial(self._record, f"{name}.{layer}")
                    handle = transformer.get_submodule(layer).register_forward_pre_hook(hook)
                    handles.callback(handle.remove)
            handles.callback(transformer.register_forward_pre_hook(self._count).remove)
            yield

    def _record(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        highest = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()
        before = self.maxima.get(name)
        self.maxima[name] = highest if before is None else torch.maximum(before.to(highest.device), highest)

    def _count(self, *_: Any) -> None:
        self.passes += 1
