"""What stands in the machine code of a GPU, as ``nvdisasm -c`` prints it."""

from __future__ import annotations

import re

_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]+)")
_LABEL = re.compile(r"(\.L_\w+):")
_BRANCH = re.compile(r"\bBRA\S* .*`\((\.L_\w+)\)")
_PRODUCT = re.compile(r"(?:IMMA|HMMA)\.(16)(8)(\d+)\.|(?:IGMMA|HGMMA)\.(64)x(\d+)x(\d+)\.")


def instructions(code: str) -> list[str]:
    """Every instruction in its order, with its modifiers, e.g. ``IMMA.16832.S8.S8``."""
    return [found[1] for found in map(_INSTRUCTION.match, code.splitlines()) if found]


def tensor_loop(code: str) -> tuple[int, int]:
    """Of the loop that keeps the tensor cores busy: its instructions, and what a warp multiplies and adds in one turn.

    It is the shortest with a product in it, from a label to a branch back there. What a turn may skip is counted.
    Zeros if there is none.
    """
    labels: dict[str, int] = {}
    passed: list[str] = []
    loops = []
    for line in code.splitlines():
        instruction, label, branch = _INSTRUCTION.match(line), _LABEL.match(line), _BRANCH.search(line)
        if instruction:
            passed.append(instruction[1])
        if label:
            labels[label[1]] = len(passed)
        elif branch and branch[1] in labels:
            inside = passed[labels[branch[1]] :]
            loops.append((len(inside), sum(map(_multiplied, inside))))
    return min((loop for loop in loops if loop[1]), default=(0, 0))


def tensor_stretch(code: str) -> tuple[int, int]:
    """The same of code whose loop the compiler unrolled as a whole: from the first product to the last."""
    names = instructions(code)
    products = [place for place, name in enumerate(names) if _multiplied(name)]
    stretch = names[products[0] : products[-1] + 1] if products else []
    return len(stretch), sum(map(_multiplied, stretch))


def _multiplied(name: str) -> int:
    """What a warp multiplies and adds by one instruction of tensor cores; four warps share a ``GMMA``."""
    tile = _PRODUCT.match(name)
    if tile is None:
        return 0
    rows, columns, channels = (int(size) for size in tile.groups() if size)
    return min(rows, 16) * columns * channels
