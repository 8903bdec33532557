"""Checkpoints in the format of ComfyUI, one file a transformer, made from full precision
or from codes of ours that fit.

``formats`` says what a quantized linear is there and makes it, ``bases`` turns our rotation into theirs, ``names``
gives tensors their original names, ``plan`` says what a file will hold, ``relabelled`` does of a folder of ours,
``export`` writes it, ``reading`` tells what one holds.
"""

from dvdq_models.comfyui.export import ExportReport, export_checkpoint

__all__ = ["ExportReport", "export_checkpoint"]
