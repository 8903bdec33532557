"""DVD-Quant on real models: recipes, checkpoints, bit switching per denoising step, and the ``dvdq`` command.

Importing this alone takes no time: names are looked up when they are asked for, and diffusers is told of the method as
soon as both are there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dvdq_models.diffusers_plugin.late_import import when_imported

if TYPE_CHECKING:
    from dvdq_models.apply import quantize
    from dvdq_models.checkpoint import load, load_pipeline, save, save_pipeline
    from dvdq_models.quantization_config import DVDQuantConfig
    from dvdq_models.switching.hook import trace
    from dvdq_reference.spec.errors import DvdqError
    from dvdq_reference.spec.recipe import Recipe

__version__ = "0.1.0"

__all__ = [
    "DVDQuantConfig",
    "DvdqError",
    "Recipe",
    "load",
    "load_pipeline",
    "quantize",
    "save",
    "save_pipeline",
    "trace",
]

_HOMES = {
    "DVDQuantConfig": "dvdq_models.quantization_config",
    "DvdqError": "dvdq_reference.spec.errors",
    "Recipe": "dvdq_reference.spec.recipe",
    "load": "dvdq_models.checkpoint",
    "load_pipeline": "dvdq_models.checkpoint",
    "quantize": "dvdq_models.apply",
    "save": "dvdq_models.checkpoint",
    "save_pipeline": "dvdq_models.checkpoint",
    "trace": "dvdq_models.switching.hook",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# diffusers' table of quantizers, and the load_lora_weights of its pipelines.
when_imported("diffusers.quantizers.auto", "dvdq_models.diffusers_plugin.registration", "register")
when_imported("diffusers.loaders.lora_pipeline", "dvdq_models.lora.fetching", "register")
