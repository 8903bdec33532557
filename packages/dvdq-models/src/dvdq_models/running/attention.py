"""Which attention kernels a transformer runs: chosen by the name that diffusers gives them, and read back.

Attention works on what the quantized projections give and knows nothing of them, so every backend of diffusers works,
low-bit ones such as ``sage`` included.
"""

from __future__ import annotations

from typing import Any

from diffusers import attention_backend
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import nn

from dvdq_reference.spec.errors import DvdqError


def set_attention(transformer: Any, name: str) -> None:
    """Run the attention of ``transformer`` by the backend ``name``, e.g. ``"sage"``; other models keep theirs.

    Raises:
        DvdqError: an unknown name, or a backend whose package is missing or too old; nothing has changed then.
    """
    known = [backend.value for backend in AttentionBackendName]
    if name not in known:
        raise DvdqError("attention", where=name, expected=f"one of {', '.join(known)}", got="another name")
    try:
        # diffusers also makes it the default of all models; leaving the context takes that back.
        with attention_backend():
            transformer.set_attention_backend(name)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise DvdqError("attention", where=name, expected="a backend that is installed", got=str(error)) from error


def attention_of(transformer: nn.Module) -> str:
    """The name of the backend that runs, e.g. ``"native"``; several, if a model mixes them, are joined by commas."""
    processors: list[Any] = [getattr(module, "processor", None) for module in transformer.modules()]
    chosen = {processor._attention_backend for processor in processors if hasattr(processor, "_attention_backend")}
    default = _AttentionBackendRegistry.get_active_backend()[0]
    return ", ".join(sorted(AttentionBackendName(default if name is None else name).value for name in chosen))
