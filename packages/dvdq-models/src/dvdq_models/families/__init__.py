"""What is known of each model family, one file each; everything else asks here.

Adding a family is adding a file and naming it below, or, from another package, under the entry points
``dvdq.families``. ``family`` says what a family is made of, ``configurations`` opens a ``config.json``, ``pipelines``
reads a folder.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from torch import nn

from dvdq_models.families.allegro import ALLEGRO
from dvdq_models.families.anyflow import ANYFLOW
from dvdq_models.families.cogvideox import COGVIDEOX
from dvdq_models.families.cosmos import COSMOS
from dvdq_models.families.easyanimate import EASYANIMATE
from dvdq_models.families.family import Call, Family
from dvdq_models.families.helios import HELIOS
from dvdq_models.families.hunyuan_video import HUNYUAN_VIDEO
from dvdq_models.families.hunyuan_video15 import HUNYUAN_VIDEO_15
from dvdq_models.families.kandinsky import KANDINSKY_5
from dvdq_models.families.kandinsky6 import KANDINSKY_6, KANDINSKY_6_SR
from dvdq_models.families.latte import LATTE
from dvdq_models.families.ltx import LTX
from dvdq_models.families.ltx2 import LTX2
from dvdq_models.families.minimax_h3 import MINIMAX_H3
from dvdq_models.families.mochi import MOCHI
from dvdq_models.families.motif_video import MOTIF_VIDEO
from dvdq_models.families.wan import WAN
from dvdq_models.families.wan_animate import WAN_ANIMATE
from dvdq_reference.spec.errors import DvdqError

_OURS = (
    WAN,
    HUNYUAN_VIDEO,
    HUNYUAN_VIDEO_15,
    WAN_ANIMATE,
    LTX,
    LTX2,
    MINIMAX_H3,
    HELIOS,
    ANYFLOW,
    MOTIF_VIDEO,
    COGVIDEOX,
    MOCHI,
    KANDINSKY_5,
    KANDINSKY_6,
    KANDINSKY_6_SR,
    ALLEGRO,
    COSMOS,
    EASYANIMATE,
    LATTE,
)
_CONVOLUTIONS = "blocks of 128 do not divide its width, and about half of its parameters are convolutions"
NOT_COVERED = {
    "WanAnimate2Transformer3DModel": "its passes take lists, and one that reads the driving video is no denoising step",
    "SanaVideoTransformer3DModel": _CONVOLUTIONS,
    "SanaWMTransformer3DModel": _CONVOLUTIONS,
    "SanaWMLTX2RefinerTransformer3DModel": "it refines what SanaWMTransformer3DModel makes, which is not covered",
}
"""Video transformers of diffusers that are not treated, and why."""


@cache
def families() -> tuple[Family, ...]:
    """All families: ours, and those of other packages."""
    return (*_OURS, *(found.load() for found in entry_points(group="dvdq.families")))


def classes() -> tuple[str, ...]:
    """Of all transformers that are known."""
    return tuple(name for family in families() for name in family.classes)


def family_of_class(operation: str, name: object, *, where: str | None = None) -> Family:
    """The family of a transformer class of that name; an unknown one is a :class:`DvdqError` that lists the known.

    Of a video transformer that is not treated it says why.
    """
    for family in families():
        if name in family.classes:
            return family
    expected = f"a video transformer that is covered ({', '.join(classes())})"
    why = NOT_COVERED.get(name) if isinstance(name, str) else None
    raise DvdqError(operation, where=where, expected=expected, got=name if why is None else f"{name}: {why}")


def family_of(transformer: nn.Module) -> Family:
    """The family of a transformer, by its class; an unknown one is a :class:`DvdqError` that lists the known."""
    return family_of_class("family_of", type(transformer).__name__)


def call_of(operation: str, pipeline_class: object, *, where: str | None = None) -> Call:
    """How a pipeline class of that name is called; an unknown one is a :class:`DvdqError` that lists the known."""
    calls = {name: call for family in families() for name, call in family.pipelines.items()}
    if pipeline_class not in tuple(calls):
        raise DvdqError(operation, where=where, expected=f"one of {', '.join(calls)}", got=pipeline_class)
    return calls[str(pipeline_class)]
