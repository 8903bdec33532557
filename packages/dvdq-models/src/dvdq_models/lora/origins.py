"""Which tensors of an adapter's file reach the transformer, whatever a converter renames, scales, drops or pops.

The converters of diffusers are run on tensors that remember which of the file they were made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_iter


class Traced(torch.Tensor):
    """A tensor that knows from which tensors of a file it was made: ``origins``, their names.

    A number that is taken out of one (``alpha.item()``) goes on unseen, so its name is noted in ``read``.
    """

    origins: frozenset[str]
    read: set[str]

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> dict[str, Traced]:
        """Every tensor of a file, traced; they share their ``read``."""
        read: set[str] = set()
        return {name: cls._mark(tensor.as_subclass(cls), frozenset((name,)), read) for name, tensor in state.items()}

    def plain(self) -> torch.Tensor:
        """The tensor itself."""
        return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        traced = [part for part in tree_iter((args, kwargs)) if isinstance(part, cls)]
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        origins = frozenset(name for tensor in traced for name in tensor.origins)
        for part in tree_iter(result):
            if isinstance(part, cls):
                cls._mark(part, origins, traced[0].read)
        if func in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__float__, torch.Tensor.__int__):
            traced[0].read.update(origins)
        return result

    @classmethod
    def _mark(cls, tensor: Traced, origins: frozenset[str], read: set[str]) -> Traced:
        tensor.origins, tensor.read = origins, read
        return tensor


def unread(file: Mapping[str, Traced], given: Mapping[str, torch.Tensor]) -> list[str]:
    """The names in ``file`` of tensors of which nothing is in ``given``, in their order."""
    reached = {name for tensor in given.values() if isinstance(tensor, Traced) for name in tensor.origins}
    reached |= next(iter(file.values())).read if file else set()
    return [name for name in file if name not in reached]
