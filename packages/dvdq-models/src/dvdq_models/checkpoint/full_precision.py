"""Whether what a source holds is weights in full precision, whichever way they come in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.layers.casting import FLOATS
from dvdq_reference.spec.errors import DvdqError

_COMPANIONS = re.compile(
    r"(.*\.)?((weight|input|output)_(scale(_inv|_2)?|zero_point|packed|shape)|scale_(weight|input)|scaled_fp8|comfy_quant"
    r"|absmax|quant_map|quant_state\..+|qweight|qzeros|scales|wscales|SCB)"
)
"""What others call the tensors that stand beside quantized weights: without them the weights are other numbers."""


def check_full_precision(operation: str, where: str, types: Mapping[str, TensorType]) -> None:
    """Refuse weights that somebody quantized.

    Args:
        operation: for errors.
        where: the file or folder.
        types: of its tensors, by the names in it.

    Raises:
        DvdqError: a scale, or another companion of quantized weights, or a tensor that is not of 16, 32 or 64-bit
            floats; the tensor is named.
    """
    expected = "weights in full precision"
    for name, found in types.items():
        if _COMPANIONS.fullmatch(name):
            got = f"a companion of quantized weights ({found.dtype} {list(found.shape)})"
            raise DvdqError(operation, where=f"{where}: {name}", expected=expected, got=got)
    for name, found in types.items():
        if found.dtype not in FLOATS:
            raise DvdqError(operation, where=f"{where}: {name}", expected=expected, got=found.dtype)
