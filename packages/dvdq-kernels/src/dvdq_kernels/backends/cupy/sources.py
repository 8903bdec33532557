"""A kernel's CUDA C++ as one text: its constants, the files that it includes, itself."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent / "cuda"
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
_TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.int8: "int8",
    torch.uint8: "uint8",
}


def translation_unit(file: str, constants: dict[str, Any]) -> str:
    """``file`` with every file that it includes in place, after ``machine.cuh`` and its ``constants``.

    Args:
        file: of the folder ``cuda``, e.g. ``"unpack.cu"``.
        constants: names and what they are: a dtype becomes a type, a bool or an int a ``constexpr``, a float a
            ``constexpr`` with all its bits.
    """
    return "\n".join([_inlined("machine.cuh"), *map(_declared, constants, constants.values()), _inlined(file)])


def _declared(name: str, value: Any) -> str:
    if isinstance(value, torch.dtype):
        return f"using {name} = {_TYPES[value]};"
    if isinstance(value, bool):
        return f"constexpr bool {name} = {str(value).lower()};"
    if isinstance(value, int):
        return f"constexpr int {name} = {value};"
    return f"constexpr float {name} = {float(value).hex()}f;"


@lru_cache
def _inlined(file: str) -> str:
    """Both sides of an ``#ifdef`` are there; what was included before is guarded by its own ``#pragma once``."""
    guard = "DVDQ_" + re.sub(r"\W", "_", file).upper()
    text = (_FOLDER / file).read_text().replace("#pragma once\n", "")
    text = _INCLUDE.sub(lambda match: _inlined(match[1]), text)
    return f"#ifndef {guard}\n#define {guard}\n{text}\n#endif\n"
