"""Calibration: what is recorded of the inputs of quantized linears while videos are made in full precision.

``max |X_j|`` over prompts, steps and tokens is all that SmoothQuant and ViDiT-Q need to know of the data. It is a
running maximum, so memory holds one number a channel however many videos there are. Rounding with feedback needs the
second moments ``E[X_i X_j]``, four bytes for each pair of channels; linears that read one tensor share one matrix.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from dvdq_models.families import family_of
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.files.atomic import new_file
from dvdq_models.files.destinations import check_new_file
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

_KIND = "dvd-quant calibration"
_FORMATS = {False: "1", True: "2"}
"""By whether there are second moments."""
_MOMENTS = "moments/"
"""Before the names of their tensors."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was recorded, e.g. ``calibration.of("transformer")["blocks.0.attn1.to_q"]`` float32 ``[in]``.

    Attributes:
        maxima: by ``<transformer>.<layer>``, on the CPU.
        prompts: of the videos.
        passes: forward passes that were watched, of all transformers together.
        seconds: that making the videos took.
        moments: ``E[X_i X_j]`` float32 ``[in, in]``, by ``<transformer>.<layer>``, if they were asked for; layers that
            read the same share one tensor.
    """

    maxima: Mapping[str, torch.Tensor]
    prompts: tuple[str, ...]
    passes: int
    seconds: float
    moments: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def of(self, transformer: str) -> dict[str, torch.Tensor]:
        """The maxima of one transformer of the pipeline by layer, as :func:`dvdq_models.quantize` takes them."""
        return _part("maxima", self.maxima, transformer)

    def moments_of(self, transformer: str) -> dict[str, torch.Tensor]:
        """Its second moments, likewise."""
        return _part("second moments", self.moments, transformer)

    def digest(self) -> str:
        """SHA-256 of names and values."""
        total = hashlib.sha256()
        shared, matrices = self._matrices()
        tensors = dict(self.maxima) | matrices
        for name in sorted(tensors):
            total.update(name.encode() + b"\0" + tensors[name].contiguous().numpy().tobytes())
        total.update(json.dumps(shared, sort_keys=True).encode() if shared else b"")
        return total.hexdigest()

    def _matrices(self) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
        """The layer after which each layer's matrix is named, and the matrices as they are stored, each once."""
        first: dict[int, str] = {}
        shared = {name: first.setdefault(id(matrix), name) for name, matrix in self.moments.items()}
        return shared, {f"{_MOMENTS}{name}": self.moments[name] for name in first.values()}

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, at once or not at all."""
        path = Path(path)
        shared, matrices = self._matrices()
        metadata = {
            "kind": _KIND,
            "format": _FORMATS[bool(shared)],
            "prompts": json.dumps(self.prompts),
            "passes": str(self.passes),
            "seconds": repr(self.seconds),
        } | ({"moments": json.dumps(shared)} if shared else {})
        check_new_file("calibration", path, (), replace=True)
        with new_file(path) as part:
            save_file(dict(self.maxima) | matrices, part, metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """What :meth:`save` wrote; any other file is a :class:`DvdqError`."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except (OSError, SafetensorError) as error:
            expected = "a file that dvdq calibrate wrote"
            raise DvdqError("calibration", where=str(path), expected=expected, got=str(error)) from error
        if (metadata.get("kind"), metadata.get("format")) != (_KIND, _FORMATS["moments" in metadata]):
            expected = f"{_KIND}, format {' or '.join(_FORMATS.values())}"
            got = f"{metadata.get('kind')}, format {metadata.get('format')}"
            raise DvdqError("calibration", where=str(path), expected=expected, got=got)
        try:
            shared = json.loads(metadata.get("moments", "{}"))
            moments = {name: tensors[f"{_MOMENTS}{first}"] for name, first in shared.items()}
            maxima = {name: tensor for name, tensor in tensors.items() if not name.startswith(_MOMENTS)}
            prompts = tuple(json.loads(metadata["prompts"]))
            return cls(maxima, prompts, int(metadata["passes"]), float(metadata["seconds"]), moments)
        except (AttributeError, KeyError, ValueError) as error:
            expected = "prompts, passes and seconds beside the tensors"
            raise DvdqError("calibration", where=str(path), expected=expected, got=repr(error)) from error


def statistics(calibration: Calibration | None, recipe: Recipe, subfolder: str = "") -> dict[str, Any]:
    """What :func:`dvdq_models.quantize` takes of a calibration for the transformer in ``subfolder``, by argument.

    That is what the recipe asks for; of one that asks for nothing, the maxima, for which it is refused.
    """
    if calibration is None:
        return {}
    transformer, found = subfolder or "transformer", dict[str, Any]()
    if recipe.smooths_by_maxima or not recipe.feeds_back:
        found["channel_maxima"] = calibration.of(transformer)
    if recipe.feeds_back:
        found["moments"] = calibration.moments_of(transformer)
    return found


def calibrate(
    pipeline: Any,
    videos: Sequence[tuple[str, Callable[[], Any]]],
    *,
    moments: bool = False,
    at_once: int | None = None,
) -> Calibration:
    """Make videos with a pipeline in full precision and record what its linears are given.

    Args:
        pipeline: one whose transformers are of known families; it is left as it came.
        videos: prompts, each with what makes its video with ``pipeline``.
        moments: whether second moments are recorded too. They are summed up in float32 where the model runs: 4 in²
            bytes for each tensor that linears read, about twice what all of the model's weights take in bfloat16.
        at_once: bytes of moments that may be summed up at a time. The videos are made again for those that have to
            wait, until all are there, in main memory. None is all at once, and one matrix always fits.

    Raises:
        DvdqError: no transformer of a known family, one that is quantized already, no video, or activations with NaN or
            Inf (the layer is named).
    """
    if not videos:
        raise DvdqError("calibrate", expected="at least one prompt", got="none")
    sums = _SecondMoments(at_once) if moments else None
    recorder, started = _Recorder(sums), time.perf_counter()
    transformers = transformers_of(pipeline)
    if not transformers:
        raise DvdqError("calibrate", expected="a pipeline with a transformer", got=type(pipeline).__name__)
    with ExitStack() as watching:
        for name, transformer in transformers.items():
            watching.enter_context(recorder.watching(name, transformer))
        going = True
        while going:
            for _, make in videos:
                make()
            going = sums is not None and sums.finish_round()
    seconds = time.perf_counter() - started
    maxima = {name: tensor.cpu() for name, tensor in recorder.maxima.items()}
    matrices = {} if sums is None else sums.means()
    for name, tensor in (*maxima.items(), *matrices.items()):
        if not bool(tensor.isfinite().all()):
            raise DvdqError(f"calibrate: {name}", expected="finite activations", got="NaN or Inf")
    return Calibration(maxima, tuple(prompt for prompt, _ in videos), recorder.passes, seconds, matrices)


def _part(what: str, tensors: Mapping[str, torch.Tensor], transformer: str) -> dict[str, torch.Tensor]:
    prefix = f"{transformer}."
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not found:
        recorded = sorted({name.partition(".")[0] for name in tensors})
        raise DvdqError("calibration", where=transformer, expected=f"its {what}", got=f"those of {recorded}")
    return found


class _Recorder:
    """Running maxima of the inputs of watched linears, which it also gives to ``sums``, if there are."""

    def __init__(self, sums: _SecondMoments | None) -> None:
        self.maxima: dict[str, torch.Tensor] = {}
        self.passes = 0
        self._sums = sums

    @contextmanager
    def watching(self, name: str, transformer: nn.Module) -> Iterator[None]:
        """Record every linear of ``transformer`` whose activations a recipe would quantize."""
        if any(isinstance(module, QuantizedLinear) for module in transformer.modules()):
            raise DvdqError("calibrate", where=name, expected="a model in full precision", got="a quantized one")
        with ExitStack() as handles:
            for layer, treatment in family_of(transformer).treatments(transformer).items():
                hooks = [self._record] if treatment == "quantize" else []
                if self._sums is not None and treatment != "keep":
                    hooks.append(self._sums.add)
                for hook in hooks:
                    linear = transformer.get_submodule(layer)
                    handles.callback(linear.register_forward_pre_hook(partial(hook, f"{name}.{layer}")).remove)
            handles.callback(transformer.register_forward_pre_hook(self._count).remove)
            yield

    def _record(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        highest = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()
        before = self.maxima.get(name)
        self.maxima[name] = highest if before is None else torch.maximum(before.to(highest.device), highest)

    def _count(self, *_: Any) -> None:
        self.passes += 1


class _SecondMoments:
    """Sums of ``Xᵀ X`` of the inputs of linears, of as many at a time as ``at_once`` bytes hold."""

    def __init__(self, at_once: int | None = None) -> None:
        self._at_once = at_once
        self._sums: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._done: dict[str, torch.Tensor] = {}
        self._shared: dict[str, str] = {}
        """Of each layer, the first that read what it reads."""
        self._read: MutableMapping[torch.Tensor, tuple[str, int]] = WeakIdKeyDictionary()
        """Tensors that are alive: the layer that read each first, and its version then."""

    def add(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Add ``Xᵀ X``, unless a layer that reads the same has, or it is not this layer's turn."""
        x = inputs[0].detach() if inputs[0].requires_grad else inputs[0]
        # To an inference tensor a write leaves no trace.
        version = None if x.is_inference() else x._version
        first, known = self._read.get(x, (None, None))
        before = first if version is not None and version == known else None
        if (owner := self._shared.setdefault(name, before or name)) != name:
            if before != owner:
                expected = f"the tensor that {owner} reads, as in the passes before"
                raise DvdqError("calibrate", where=name, expected=expected, got="another")
            return
        if version is not None and before is None:
            self._read[x] = name, version
        if name in self._done or name in self._waiting:
            return
        total = self._sums.get(name)
        if total is None and not self._fits(x.shape[-1]):
            self._waiting.add(name)
            return
        rows = x.flatten(0, -2).float()
        product = rows.T @ rows
        self._sums[name] = product if total is None else total.to(product.device).add_(product)
        self._tokens[name] = self._tokens.get(name, 0) + rows.shape[0]

    def finish_round(self) -> bool:
        """Take to main memory what was summed up; whether there are layers that wait for their turn."""
        for name, total in self._sums.items():
            self._done[name] = total.div_(self._tokens[name]).cpu()
        self._sums.clear()
        waiting = bool(self._waiting)
        self._waiting.clear()
        return waiting

    def means(self) -> dict[str, torch.Tensor]:
        """``E[X_i X_j]`` of each layer, on the CPU; those that read the same have the same tensor."""
        return {name: self._done[first] for name, first in self._shared.items()}

    def _fits(self, in_features: int) -> bool:
        there = sum(total.nbytes for total in self._sums.values())
        return self._at_once is None or not self._sums or there + 4 * in_features**2 <= self._at_once
