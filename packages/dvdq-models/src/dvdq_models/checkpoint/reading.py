"""A quantized transformer from its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from dvdq_models.apply import use_backend
from dvdq_models.checkpoint.checksums import check_sums
from dvdq_models.checkpoint.format import read_quantized_config
from dvdq_models.checkpoint.lazy import open_folder
from dvdq_models.families.configurations import transformer_class
from dvdq_models.files.text import one_line
from dvdq_reference.spec.errors import DvdqError


def load(folder: str | Path, *, backend: str = "auto", dtype: torch.dtype | None = None) -> nn.Module:
    """The transformer that :func:`~dvdq_models.save` wrote, in evaluation mode on the CPU.

    The same as ``from_pretrained`` of its class, which is then read from ``config.json``.

    Args:
        folder: the transformer's folder.
        backend: which kernels run.
        dtype: of biases and of the layers that stayed as they were, except those that diffusers keeps in float32; None
            is as stored, bit for bit. Codes, scales and zero-points are always as stored.

    Raises:
        DvdqError: a folder that is no quantized checkpoint, a newer format, an unknown class, a file that is missing,
            truncated or altered, or tensors that are missing, unexpected, or of another shape or dtype.
    """
    folder = Path(folder)
    config, _recipe = read_quantized_config(folder)
    model_class = transformer_class("load", folder, config)
    try:
        transformer: nn.Module = model_class.from_pretrained(str(folder), torch_dtype=dtype)
    except DvdqError:
        raise
    except Exception as error:
        # diffusers opens the files before the quantizer is asked to look at them: say which of them is wrong.
        check_stored(folder)
        if not isinstance(error, OSError | ValueError):
            raise
        expected = "a transformer's folder that is complete"
        raise DvdqError("load", where=str(folder), expected=expected, got=one_line(error)) from error
    use_backend(transformer, backend)
    return transformer


def check_stored(folder: Path) -> None:
    """A :class:`DvdqError` that names the file of a transformer's folder that is altered or does not open, if any."""
    check_sums("load", folder)
    open_folder("load", folder)
