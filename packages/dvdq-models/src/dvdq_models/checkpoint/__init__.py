"""Quantized checkpoints: a normal diffusers folder whose safetensors hold packed codes.

``config.json`` says under ``quantization_config`` which recipe made it and in which format; ``SHA256SUMS`` beside it
lists the SHA-256 of each weight file, as sha256sum(1) writes and checks it. A folder is written beside its final name
and renamed when it is complete, so a name never stands for half a checkpoint. Nothing is pickled.
"""

from dvdq_models.checkpoint.lazy import stored_dtype
from dvdq_models.checkpoint.pipelines import load_pipeline, save_pipeline
from dvdq_models.checkpoint.reading import load
from dvdq_models.checkpoint.writing import save
from dvdq_models.families.pipelines import is_quantized

__all__ = ["is_quantized", "load", "load_pipeline", "save", "save_pipeline", "stored_dtype"]
