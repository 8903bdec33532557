"""Small tensors that kernels read at every call: factors, signs, tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

from dvdq_kernels.gpu import refuse_in_capture

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def kept(make: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``make``, whose last argument is a device, called once for each of its arguments.

    What it made stays as long as the process lives: a CUDA graph goes on reading what was there when it was captured.

    Raises:
        DvdqError: it was not made before a capture began.
    """

    @cache
    @wraps(make)
    def first(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        device = arguments[-1]
        assert isinstance(device, torch.device)
        refuse_in_capture(make.__name__.strip("_"), device)
        with torch.inference_mode(False):
            return make(*arguments, **named)

    return cast(Callable[Parameters, Result], first)
