"""Checkpoints in their authors' own format, through the converters of diffusers, one tensor at a time.

A converter takes a dictionary of whole tensors, renames, splits and joins them. It is run once on stand-ins without
data, each of which remembers how it was made; a tensor is then made from the file when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import fetch_diffusers_config, infer_diffusers_model_type
from torch.utils._pytree import tree_iter, tree_map_only

from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.checkpoint.lazy import LazyTensor
from dvdq_models.families import families
from dvdq_reference.spec.errors import DvdqError

_PREFIXES = ("model.diffusion_model.", "model.model.")
"""What ComfyUI's files put before every name."""


class _StandIn(torch.Tensor):
    """A tensor on the meta device that knows how to make the real one."""

    origins: tuple[str, ...]
    make: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, tensor: LazyTensor) -> _StandIn:
        empty = torch.empty(tensor.type.shape, dtype=tensor.type.dtype, device="meta")
        return _remember(empty.as_subclass(cls), (tensor.where,), tensor.read)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        parts = (stand_in for stand_in in tree_iter((args, kwargs)) if isinstance(stand_in, cls))
        origins = tuple(dict.fromkeys(origin for part in parts for origin in part.origins))

        def again() -> Any:
            real_args, real_kwargs = tree_map_only(cls, lambda stand_in: stand_in.make(), (args, kwargs))
            return func(*real_args, **real_kwargs)

        if isinstance(result, cls):
            return _remember(result, origins, again)
        if isinstance(result, tuple | list):
            for i, part in enumerate(result):
                if isinstance(part, cls):
                    _remember(part, origins, lambda i=i: again()[i])  # type: ignore[misc]
        return result

    def lazy(self) -> LazyTensor:
        return LazyTensor(" and ".join(self.origins), TensorType(tuple(self.shape), self.dtype), self.make)


def _remember(stand_in: _StandIn, origins: tuple[str, ...], make: Callable[[], torch.Tensor]) -> _StandIn:
    stand_in.origins, stand_in.make = origins, make
    return stand_in


def repository_of(operation: str, where: str, tensors: Mapping[str, LazyTensor]) -> str:
    """The hub id of the pipeline whose transformer an original checkpoint is, as ``from_single_file`` finds it.

    Raises:
        DvdqError: a checkpoint of a family that is not read from such a file.
    """
    stand_ins = _stand_ins(tensors)
    kind = infer_diffusers_model_type(stand_ins)
    kinds = tuple(begin for family in families() for begin in family.originals)
    if not kind.startswith(kinds):
        expected = f"an original checkpoint of {' or '.join(family.name for family in families() if family.originals)}"
        raise DvdqError(operation, where=where, expected=expected, got=f"tensors such as {next(iter(stand_ins), None)}")
    return str(fetch_diffusers_config(stand_ins)["pretrained_model_name_or_path"])


def convert(model_class: str, tensors: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """The tensors under diffusers' names, each made of those of the original that it comes from when it is read.

    Args:
        model_class: e.g. ``WanTransformer3DModel``; says which converter.
        tensors: of the original checkpoint.

    Raises:
        DvdqError: a class for which diffusers has no converter, tensors that it fails on, or one that it leaves out.
    """
    if model_class not in SINGLE_FILE_LOADABLE_CLASSES:
        expected = "a class whose original checkpoints diffusers converts"
        raise DvdqError("quantize", expected=expected, got=model_class)
    stand_ins = _stand_ins(tensors)
    try:
        converted = SINGLE_FILE_LOADABLE_CLASSES[model_class]["checkpoint_mapping_fn"](stand_ins)
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        expected, got = f"tensors that diffusers converts to {model_class}", f"{type(error).__name__}: {error}"
        raise DvdqError("quantize", expected=expected, got=got) from error
    read = {origin for stand_in in converted.values() for origin in stand_in.origins}
    if unread := [tensor.where for tensor in tensors.values() if tensor.where not in read]:
        expected = f"tensors that are all read for {model_class}"
        raise DvdqError("quantize", where=unread[0], expected=expected, got=f"{len(unread)} left out")
    return {name: stand_in.lazy() for name, stand_in in converted.items()}


def _stand_ins(tensors: Mapping[str, LazyTensor]) -> dict[str, _StandIn]:
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in tensors)), "")
    return {name.removeprefix(prefix): _StandIn.of(tensor) for name, tensor in tensors.items()}
