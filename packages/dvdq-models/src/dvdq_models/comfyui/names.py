"""Tensors of diffusers under the names of the original checkpoint, from the table of their family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import LazyTensor
from dvdq_models.families import families
from dvdq_models.families.family import Halves, OriginalNames
from dvdq_reference.spec.errors import DvdqError

_BLOCK = re.compile(r"(?<=blocks\.)\d+")
_LEAF = re.compile(r"(\.weight|\.bias)?$")


@dataclass(frozen=True)
class Original:
    """A tensor of the original: those of diffusers that stand in it one below the other, or one whose halves change."""

    name: str
    parts: tuple[str, ...]
    halves: bool

    def of(self, tensors: Mapping[str, LazyTensor]) -> LazyTensor:
        """The tensor, made of the given ones when it is read."""
        parts = [tensors[name] for name in self.parts]
        first = parts[0].type
        kind = TensorType((sum(part.type.shape[0] for part in parts), *first.shape[1:]), first.dtype)

        def read() -> torch.Tensor:
            if self.halves:
                return torch.cat(parts[0].read().chunk(2)[::-1])
            return parts[0].read() if len(parts) == 1 else torch.cat([part.read().to(first.dtype) for part in parts])

        if first.shape == ():
            return parts[0]
        return LazyTensor(" and ".join(part.where for part in parts), kind, read)


def names_of(model_class: str, where: str) -> OriginalNames:
    """The table of a class.

    Raises:
        DvdqError: one that has none; the classes that have are listed.
    """
    known = {name: table for family in families() for name, table in family.original_names.items()}
    if model_class not in known:
        expected = f"a transformer that ComfyUI runs and whose names are known ({', '.join(known)})"
        raise DvdqError("export", where=where, expected=expected, got=model_class)
    return known[model_class]


def original_tensors(names: list[str], table: OriginalNames, where: str) -> tuple[Original, ...]:
    """The tensors of the original that those of diffusers called ``names``, in the model's order, make up.

    Raises:
        DvdqError: a tensor that the table does not name, or one of the original of which a part is missing.
    """
    modules = {theirs: ours if isinstance(ours, tuple) else (_module(ours),) for theirs, ours in table.items()}
    found_in = {ours: theirs for theirs, parts in modules.items() for ours in parts}
    originals: dict[str, Original] = {}
    given = frozenset(names)
    for name in names:
        leaf = _LEAF.search(name)
        assert leaf is not None
        block = _BLOCK.search(name)
        template = _BLOCK.sub("{}", name[: leaf.start()], count=1)
        if template not in found_in:
            expected = "a tensor that the original has too"
            raise DvdqError("export", where=f"{where}: {name}", expected=expected, got="one without a name there")
        theirs, number = found_in[template], block[0] if block else ""
        original = theirs.format(number) + leaf[0]
        if original not in originals:
            parts = tuple(part.format(number) + leaf[0] for part in modules[theirs])
            if missing := [part for part in parts if part not in given]:
                raise DvdqError(
                    "export", where=where, expected=f"tensor {missing[0]}, a part of {original}", got="none"
                )
            originals[original] = Original(original, parts, isinstance(table[theirs], Halves))
    return tuple(originals.values())


def _module(ours: str | Halves) -> str:
    return ours.module if isinstance(ours, Halves) else ours
