"""What a file for ComfyUI will hold: which linear gets which format, and in which dtype the rest is copied."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import most_common_dtype
from dvdq_models.comfyui.formats import (
    OPERATION,
    Encoding,
    FormatName,
    LinearDtype,
    SignedRows,
    activations_too,
    comfy_quant,
    weight_only,
)
from dvdq_models.comfyui.names import Original, names_of, original_tensors
from dvdq_models.comfyui.relabelled import check_recipe, relabelling, stored
from dvdq_models.families import family_of
from dvdq_models.families.configurations import empty_transformer_of
from dvdq_models.families.family import Treatment
from dvdq_models.layers.casting import cast
from dvdq_models.layers.encoding import check_weight
from dvdq_models.streaming.plan import Step, cast_step, check_names
from dvdq_models.streaming.source import TransformerSource
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ROTATION_BLOCK

_BLOCK = re.compile(r"(\w*blocks)\.(\d+)\.")


@dataclass(frozen=True)
class FilePlan:
    """One file.

    Attributes:
        subfolder: of the transformer in its pipeline; empty if it stands alone.
        steps: one for each tensor of the original.
        outputs: the types of the tensors that they write.
        formats: of each linear that is quantized, by its original name.
    """

    subfolder: str
    steps: tuple[Step, ...]
    outputs: Mapping[str, TensorType]
    formats: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Of its tensors."""
        return sum(output.nbytes for output in self.outputs.values())


def plan_file(
    source: TransformerSource,
    wanted: FormatName,
    *,
    linear_dtype: LinearDtype = "int4",
    ends: int = 0,
    moments: Mapping[str, torch.Tensor] | None = None,
    device: torch.device,
    backend: str = "auto",
) -> FilePlan:
    """The plan of one transformer's file.

    Args:
        source: in full precision, or quantized by a recipe whose codes ``convrot_w4a4`` holds.
        wanted: the format of the linears whose activations are quantized, where their width fits.
        linear_dtype: width of activations beside ``convrot_w4a4``.
        ends: how many blocks at either end of each stack get 8 bits.
        moments: the second moments of linears' inputs, by their names in diffusers; None rounds to nearest.
        device: where weights are quantized.
        backend: which kernels run.

    Raises:
        DvdqError: a recipe of other codes, moments beside codes that are made already or without those of a linear, a
            family that ComfyUI does not run, a tensor that is missing, unknown or of another shape, or linears that
            are treated unlike and stand in one of the original.
    """
    where = str(source.where)
    table = names_of(str(source.config.get("_class_name")), where)
    transformer = empty_transformer_of(OPERATION, source.where, source.config)
    treatments = family_of(transformer).treatments(transformer)
    expected = {name: tuple(tensor.shape) for name, tensor in transformer.state_dict().items()}
    names = expected
    if source.recipe is not None:
        check_recipe(source.recipe, where, wanted, ends)
        if moments is not None:
            expected_source = "a source in full precision, whose codes are still to be rounded"
            raise DvdqError(OPERATION, where=where, expected=expected_source, got=f"codes of {source.recipe.name}")
        quantized = frozenset(name for name, treatment in treatments.items() if treatment != "keep")
        names = stored(expected, quantized, source.recipe)
    check_names(source, names, transformer._keys_to_ignore_on_load_unexpected or ())
    most = most_common_dtype({name: tensor for name, tensor in source.tensors.items() if name in expected})
    dtype = most if most.itemsize == 2 else torch.bfloat16  # what it computes in
    kept = set(transformer._keep_in_fp32_modules or ())
    higher = _ends(list(treatments), ends)
    steps: list[Step] = []
    outputs: dict[str, TensorType] = {}
    formats: dict[str, str] = {}
    for original in original_tensors(list(expected), table, where):
        layer = original.name.removesuffix(".weight")
        treatment, at_end = _treatment(original, treatments, higher) if layer != original.name else ("keep", False)
        encoding: Encoding | None
        if treatment != "keep" and source.recipe is not None:
            encoding = SignedRows(4, ROTATION_BLOCK, "int8" if treatment == "weight-only" else linear_dtype)
            relabelled, shape = relabelling(original, source.tensors, encoding)
            steps += relabelled
        else:
            tensor = original.of(source.tensors)
            shape = tensor.type.shape
            encoding = _encoding(treatment, "int8_tensorwise" if at_end else wanted, shape, linear_dtype)
            if encoding is None:
                to = torch.float32 if kept & set(original.parts[0].split(".")) else dtype
                steps.append(Step(original.name, tensor, cast_step(tensor.where, original.name, to)))
                outputs[original.name] = TensorType(shape, to)
                continue
            seen = None if moments is None else _moments(original, moments, shape[1])
            steps.append(Step(layer, tensor, partial(_quantize, tensor.where, layer, encoding, device, backend, seen)))
        types = encoding.types(shape[0], shape[1])
        types["comfy_quant"] = TensorType(tuple(comfy_quant(encoding).shape), torch.uint8)
        outputs |= {f"{layer}.{name}": kind for name, kind in types.items()}
        formats[layer] = str(encoding.config["format"])
    return FilePlan(source.subfolder, tuple(steps), outputs, formats)


def _treatment(
    original: Original, treatments: Mapping[str, Treatment], higher: frozenset[str]
) -> tuple[Treatment, bool]:
    """What becomes of a weight of the original, and whether it is one of those that get more bits."""
    layers = [part.removesuffix(".weight") for part in original.parts]
    found = {(treatments.get(layer, "keep"), layer in higher) for layer in layers}
    if len(found) != 1:
        got = ", ".join(sorted(treatment for treatment, _ in found))
        raise DvdqError(OPERATION, where=original.name, expected="linears that are treated alike", got=got)
    return found.pop()


def _moments(original: Original, moments: Mapping[str, torch.Tensor], in_features: int) -> torch.Tensor:
    """Of what the linear reads: in the original it is one tensor, whichever of its parts in diffusers read it."""
    layer = original.parts[0].removesuffix(".weight")
    seen, size = moments.get(layer), [in_features] * 2
    if seen is None or list(seen.shape) != size:
        got = None if seen is None else list(seen.shape)
        raise DvdqError(OPERATION, where=layer, expected=f"second moments {size}", got=got)
    return seen


def _encoding(
    treatment: Treatment, wanted: FormatName, shape: tuple[int, ...], linear_dtype: LinearDtype
) -> Encoding | None:
    if treatment == "keep":
        return None
    _, in_features = shape
    return (
        weight_only(in_features) if treatment == "weight-only" else activations_too(wanted, in_features, linear_dtype)
    )


def _ends(layers: list[str], count: int) -> frozenset[str]:
    """The layers of the first and the last ``count`` blocks of each stack."""
    stacks: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for layer in layers:
        if match := _BLOCK.match(layer):
            stacks[match[1]][int(match[2])].append(layer)
    chosen: set[str] = set()
    for blocks in stacks.values():
        numbers = sorted(blocks)
        for number in {*numbers[:count], *numbers[len(numbers) - count :]} if count else ():
            chosen.update(blocks[number])
    return frozenset(chosen)


def _quantize(
    where: str,
    layer: str,
    encoding: Encoding,
    device: torch.device,
    backend: str,
    moments: torch.Tensor | None,
    weight: torch.Tensor,
) -> dict[str, torch.Tensor]:
    check_weight(OPERATION, where, weight)
    weight = weight.to(device)
    if weight.dtype == torch.float64:
        weight = cast(OPERATION, where, weight, torch.float32)
    seen = None if moments is None else moments.to(device)
    tensors = encoding.encode(weight, backend, seen) | {"comfy_quant": comfy_quant(encoding)}
    return {f"{layer}.{name}": tensor for name, tensor in tensors.items()}
