"""What is known of each model family: one rule table a file, over full module names.

Adding a family is adding a file and naming it in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from accelerate import init_empty_weights
from torch import nn

from dvdq_models.families.hunyuan_video import HUNYUAN_VIDEO
from dvdq_models.families.rules import Family
from dvdq_models.families.wan import WAN
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError

FAMILIES: tuple[Family, ...] = (WAN, HUNYUAN_VIDEO)
_MOST_LAYERS = 1000
"""Of one kind. A model of more is a slip of the pen, and would take hours to build before anything else is wrong."""


def transformer_class(operation: str, path: Path, config: Mapping[str, Any]) -> Any:
    """The diffusers class that a ``config.json`` at ``path`` names; it must be of a known family."""
    name = config.get("_class_name")
    known = [c for family in FAMILIES for c in family.classes]
    if name not in known:
        raise DvdqError(operation, where=str(path), expected=f"_class_name {' or '.join(known)}", got=name)
    return getattr(diffusers, str(name))


def empty_transformer_of(operation: str, path: Path, config: Mapping[str, Any], *, buffers: bool = True) -> Any:
    """The transformer that a ``config.json`` at ``path`` describes, without weights.

    Args:
        operation: for errors.
        path: of the configuration, for errors.
        config: what stands in it.
        buffers: whether they are without data too, like the weights.

    Raises:
        DvdqError: a class that is not known, or values that its constructor cannot take.
    """
    model_class = transformer_class(operation, path, config)
    for name, value in config.items():
        if "layers" in name and isinstance(value, int | float) and not 0 <= value <= _MOST_LAYERS:
            raise DvdqError(operation, where=f"{path}: {name}", expected=f"at most {_MOST_LAYERS}", got=value)
    try:
        with init_empty_weights(include_buffers=buffers):
            return model_class.from_config(dict(config))
    # Whatever it does with values of another kind or size than it expects.
    except Exception as error:
        expected, got = f"the configuration of a {model_class.__name__}", f"{type(error).__name__}: {one_line(error)}"
        raise DvdqError(operation, where=str(path), expected=expected, got=got) from error


def family_of(transformer: nn.Module) -> Family:
    """The family of a transformer, by its class; an unknown one is a :class:`DvdqError` that lists the known."""
    name = type(transformer).__name__
    for family in FAMILIES:
        if name in family.classes:
            return family
    known = ", ".join(c for family in FAMILIES for c in family.classes)
    raise DvdqError("family_of", expected=f"a transformer of class {known}", got=name)
