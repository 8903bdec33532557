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
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import map_file
from dvdq_models.checkpoint.writing import WeightFiles
from dvdq_models.families import family_of
from dvdq_models.families.pipelines import transformers_of
from dvdq_models.files.atomic import new_file
from dvdq_models.files.destinations import check_new_file
from dvdq_models.files.workspace import Workspace
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

_KIND = "dvd-quant calibration"
_FORMATS = {False: "1", True: "2"}
"""By whether there are second moments."""
_MOMENTS = "moments/"
"""Before the names of their tensors."""
Progress = Callable[[int, int], None]
"""Called after each video with how many are made and how many there are to make, rounds included."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was recorded, e.g. ``calibration.of("transformer")["blocks.0.attn1.to_q"]`` float32 ``[in]``.

    Attributes:
        maxima: by ``<transformer>.<layer>``, on the CPU.
        prompts: of the videos.
        passes: forward passes of the videos, of all transformers together; not those of videos that were made again.
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
        tensors, shared = self._stored(), self._shared()
        for name in sorted(tensors):
            total.update(name.encode() + b"\0")
            total.update(tensors[name].contiguous().numpy().data)
        total.update(json.dumps(shared, sort_keys=True).encode() if shared else b"")
        return total.hexdigest()

    def _shared(self) -> dict[str, str]:
        """Of each layer with moments, the first that reads what it reads, after which their matrix is named."""
        first: dict[int, str] = {}
        return {name: first.setdefault(id(matrix), name) for name, matrix in self.moments.items()}

    def _stored(self) -> dict[str, torch.Tensor]:
        """The tensors of a file, each matrix once."""
        firsts = dict.fromkeys(self._shared().values())
        return dict(self.maxima) | {f"{_MOMENTS}{name}": self.moments[name] for name in firsts}

    def _file(self, folder: Path, stem: str) -> WeightFiles:
        """A file of this calibration whose tensors are still to be written; of these, shapes are looked at alone."""
        types = {name: TensorType(tuple(tensor.shape), tensor.dtype) for name, tensor in self._stored().items()}
        shared = self._shared()
        metadata = {
            "kind": _KIND,
            "format": _FORMATS[bool(shared)],
            "prompts": json.dumps(self.prompts),
            "passes": str(self.passes),
            "seconds": f"{self.seconds:.16e}",  # of one length, whatever it is, so that it can be written over
        } | ({"moments": json.dumps(shared)} if shared else {})
        return WeightFiles(folder, types, None, stem=stem, metadata=metadata)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, at once or not at all."""
        check_new_file("calibration", Path(path), (), replace=True)
        with new_file(Path(path)) as part:
            with self._file(part.parent, part.stem) as file:
                for name, tensor in self._stored().items():
                    file.write(name, tensor)
            (part.parent / file.shards[0].name).replace(part)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """What :meth:`save` wrote; any other file is a :class:`DvdqError`.

        Second moments stay in the file, which is mapped: they cost no memory until they are looked at, and then memory
        that the system takes back when it needs it. They must not be written to.
        """
        metadata, tensors = map_file("calibration", Path(path), "a file that dvdq calibrate wrote")
        if (metadata.get("kind"), metadata.get("format")) != (_KIND, _FORMATS["moments" in metadata]):
            expected = f"{_KIND}, format {' or '.join(_FORMATS.values())}"
            got = f"{metadata.get('kind')}, format {metadata.get('format')}"
            raise DvdqError("calibration", where=str(path), expected=expected, got=got)
        try:
            shared = json.loads(metadata.get("moments", "{}"))
            moments = {name: tensors[f"{_MOMENTS}{first}"] for name, first in shared.items()}
            maxima = {name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(_MOMENTS)}
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
    transformer = subfolder or "transformer"
    found: dict[str, Mapping[str, torch.Tensor]] = {}
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
    work: Workspace | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Make videos with a pipeline in full precision and record what its linears are given.

    Args:
        pipeline: one whose transformers are of known families; it is left as it came.
        videos: prompts, each with what makes its video with ``pipeline``.
        moments: whether second moments are recorded too. They are summed up in float32 where the model runs: 4 in²
            bytes for each tensor that linears read, two to three times what the model's weights take in bfloat16.
        at_once: bytes of moments that may be summed up at a time. The videos are made again for those that have to
            wait, a round for as many as fit. None is all at once, and one matrix always fits.
        work: an open workspace of the file to be, which is published and loaded; without it, all moments end up in main
            memory. Those of a round are on the disk before the next begins, and a run that was killed goes on with the
            rounds that are left: of the same videos, for which whoever opened the workspace answers by its identity.
        progress: told of each video.

    Raises:
        DvdqError: no transformer of a known family, one that is quantized already, no video, activations with NaN or
            Inf (the layer is named), or no room on the disk.
    """
    if not videos:
        raise DvdqError("calibrate", expected="at least one prompt", got="none")
    transformers = transformers_of(pipeline)
    if not transformers:
        raise DvdqError("calibrate", expected="a pipeline with a transformer", got=type(pipeline).__name__)
    if work is not None and work.finished:
        work.publish()
        return Calibration.load(work.destination)
    sums, matrices, count = _SecondMoments(at_once), dict[str, torch.Tensor](), 0
    recorder = _Recorder(sums if moments else None)
    made = None if work is None else sums.go_on(work)
    with ExitStack() as watching:
        for name, transformer in transformers.items():
            watching.enter_context(recorder.watching(name, transformer))
        while made is None or sums.waiting:
            started = time.perf_counter()
            for left, (_, make) in zip(reversed(range(len(videos))), videos, strict=True):
                make()
                count += 1
                if progress is not None:
                    progress(count, count + left + len(videos) * sums.rounds_left)
            seconds = time.perf_counter() - started
            if made is None:
                made = Calibration(recorder.finite_maxima(), tuple(p for p, _ in videos), recorder.passes, seconds)
            else:
                made = replace(made, seconds=made.seconds + seconds)
            if work is None:
                matrices.update(sums.finish_round())
            else:
                _write(work, replace(made, moments=sums.by_layer(sums.shapes)), sums.finish_round())
    if work is None:
        return replace(made, moments=sums.by_layer(matrices))
    work.publish()
    return Calibration.load(work.destination)


@contextmanager
def shapes_of_moments(transformer: nn.Module) -> Iterator[Mapping[str, torch.Tensor]]:
    """Whose second moments would be recorded in the block, and of which shape: tensors on the meta device, by layer."""
    sums = _SecondMoments()
    with _Recorder(sums).watching("transformer", transformer):
        yield sums.shapes


def _write(work: Workspace, made: Calibration, matrices: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Write the maxima of ``made`` and some of its matrices to their places in what will be its file."""
    written = []
    with made._file(work.result, work.product.stem) as file:
        work.check_space(sum(shard.size for shard in file.shards))
        named = ((f"{_MOMENTS}{name}", matrix) for name, matrix in matrices)
        for name, tensor in chain(made.maxima.items(), named):
            file.write(name, tensor)
            written.append(name)
        file.sync()
    work.record(written)


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
        self.passes = 0
        self._maxima: dict[str, torch.Tensor] = {}
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

    def finite_maxima(self) -> dict[str, torch.Tensor]:
        """By ``<transformer>.<layer>``, on the CPU; NaN or Inf is a :class:`DvdqError`."""
        return {name: _finite(name, tensor.cpu()) for name, tensor in self._maxima.items()}

    def _record(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        highest = inputs[0].detach().abs().flatten(0, -2).amax(dim=0).float()
        before = self._maxima.get(name)
        self._maxima[name] = highest if before is None else torch.maximum(before.to(highest.device), highest)

    def _count(self, *_: Any) -> None:
        self.passes += 1


class _SecondMoments:
    """Sums of ``Xᵀ X`` of the inputs of linears, of as many at a time as ``at_once`` bytes hold.

    Attributes:
        shared: of each layer, the first that read what it reads.
        shapes: of these, their matrices on the meta device.
    """

    def __init__(self, at_once: int | None = None) -> None:
        self.shared: dict[str, str] = {}
        self.shapes: dict[str, torch.Tensor] = {}
        self._at_once = at_once
        self._sums: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._done: set[str] = set()
        self._read: MutableMapping[torch.Tensor, tuple[str, int]] = WeakIdKeyDictionary()
        """Tensors that are alive: the layer that read each first, and its version then."""

    def go_on(self, work: Workspace) -> Calibration | None:
        """Take up where another run stopped; what it made, but for moments, if it finished a round."""
        if not work.done:
            return None
        made = Calibration.load(work.product)
        self.shared = made._shared()
        self.shapes = {name: made.moments[name].to("meta") for name in self.shared.values()}
        self._done = {name for name in self.shapes if f"{_MOMENTS}{name}" in work.done}
        return replace(made, moments={})  # Windows keeps a file that is mapped as it is

    def add(self, name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Add ``Xᵀ X``, unless a layer that reads the same has, or it is not this layer's turn."""
        x = inputs[0].detach() if inputs[0].requires_grad else inputs[0]
        # To an inference tensor a write leaves no trace.
        version = None if x.is_inference() else x._version
        first, known = self._read.get(x, (None, None))
        before = first if version is not None and version == known else None
        if (owner := self.shared.setdefault(name, before or name)) != name:
            if before != owner:
                expected = f"the tensor that {owner} reads, as in the passes before"
                raise DvdqError("calibrate", where=name, expected=expected, got="another")
            return
        if version is not None and before is None:
            self._read[x] = name, version
        if name not in self.shapes:
            self.shapes[name] = torch.empty((x.shape[-1], x.shape[-1]), dtype=torch.float32, device="meta")
        if name in self._done:
            return
        if name not in self._sums:
            if not self._fits(sum(total.nbytes for total in self._sums.values()), self.shapes[name].nbytes):
                return
            with torch.inference_mode(False):  # what begins in that mode could not be added to outside of it
                self._sums[name] = torch.zeros_like(self.shapes[name], device=x.device)
            self._tokens[name] = 0
        rows = x.flatten(0, -2).float()
        self._sums[name] = self._sums[name].to(rows.device).addmm_(rows.T, rows)
        self._tokens[name] += rows.shape[0]

    def finish_round(self) -> Iterator[tuple[str, torch.Tensor]]:
        """``E[X_i X_j]`` of what was summed up, on the CPU, by layer; each leaves these sums as it is asked for.

        NaN or Inf is a :class:`DvdqError`.
        """
        while self._sums:
            name = next(iter(self._sums))
            mean = _finite(name, self._sums.pop(name).div_(self._tokens.pop(name)).cpu())
            self._done.add(name)
            yield name, mean

    @property
    def waiting(self) -> bool:
        """Whether there are layers that still wait for their turn."""
        return not self._done >= self.shapes.keys()

    @property
    def rounds_left(self) -> int:
        """How many rounds those take that have their turn neither in this round nor had it before."""
        left = [m.nbytes for name, m in self.shapes.items() if name not in self._done and name not in self._sums]
        rounds = 0
        while left:
            there, waiting = 0, []
            for size in left:
                if self._fits(there, size):
                    there += size
                else:
                    waiting.append(size)
            left, rounds = waiting, rounds + 1
        return rounds

    def by_layer(self, matrices: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A matrix of each layer; those that read the same have the same tensor."""
        return {name: matrices[first] for name, first in self.shared.items()}

    def _fits(self, there: int, size: int) -> bool:
        return self._at_once is None or there == 0 or there + size <= self._at_once


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not all(extreme.isfinite() for extreme in torch.aminmax(tensor)):  # they carry NaN and Inf, at no copy
        raise DvdqError(f"calibrate: {name}", expected="finite activations", got="NaN or Inf")
    return tensor
