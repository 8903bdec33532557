"""DVD-Quant on real models: recipes, checkpoints, bit switching per denoising step, and the ``dvdq`` command."""

from dvdq_models.apply import quantize
from dvdq_models.bit_switching import trace
from dvdq_models.checkpoint import load, load_pipeline, save, save_pipeline
from dvdq_models.diffusers_plugin import register as _register_with_diffusers
from dvdq_models.quantization_config import DVDQuantConfig
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

_register_with_diffusers()
