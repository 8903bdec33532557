"""Checkpoints of any size, quantized tensor by tensor from disk to disk.

``source`` finds what is to be quantized, ``original`` reads other people's formats through diffusers' converters,
``plan`` says what each tensor becomes and where it will lie, ``tasks`` note what is done so that a killed run goes on,
``quantizer`` does it.
"""

from dvdq_models.streaming.quantizer import StreamingReport, quantize_checkpoint

__all__ = ["StreamingReport", "quantize_checkpoint"]
