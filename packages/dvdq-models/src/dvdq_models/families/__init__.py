"""What is known of each model family: one rule table a file, over full module names.

Adding a family is adding a file and naming it in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from torch import nn

from dvdq_models.families.hunyuan_video import HUNYUAN_VIDEO
from dvdq_models.families.rules import Family
from dvdq_models.families.wan import WAN
from dvdq_reference.spec.errors import DvdqError

FAMILIES: tuple[Family, ...] = (WAN, HUNYUAN_VIDEO)


def transformer_class(operation: str, path: Path, config: Mapping[str, Any]) -> Any:
    """The diffusers class that a ``config.json`` at ``path`` names; it must be of a known family."""
    name = config.get("_class_name")
    known = [c for family in FAMILIES for c in family.classes]
    if name not in known:
        raise DvdqError(operation, where=str(path), expected=f"_class_name {' or '.join(known)}", got=name)
    return getattr(diffusers, str(name))


def family_of(transformer: nn.Module) -> Family:
    """The family of a transformer, by its class; an unknown one is a :class:`DvdqError` that lists the known."""
    name = type(transformer).__name__
    for family in FAMILIES:
        if name in family.classes:
            return family
    known = ", ".join(c for family in FAMILIES for c in family.classes)
    raise DvdqError("family_of", expected=f"a transformer of class {known}", got=name)
