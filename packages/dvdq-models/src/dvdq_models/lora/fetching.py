"""An adapter's file as it is, before diffusers' pipelines convert it: they drop what they do not know.

A pipeline converts first and asks its transformer afterwards, so ``load_lora_weights`` of the pipelines with a
transformer that can be quantized is taken over by :func:`register`. It hands the tensors of the file on with marks by
which the transformer knows what became of each. Where the transformer is in full precision, nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from dvdq_models.families.pipelines import TRANSFORMERS
from dvdq_models.files.text import one_line
from dvdq_models.layers.linear import QuantizedLinear
from dvdq_models.lora.adapter import OPERATION
from dvdq_models.lora.origins import Traced
from dvdq_reference.spec.errors import DvdqError

_WHERE_TO_LOOK = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
    "weight_name",
)


@dataclass
class Loading:
    """What a pipeline's call is loading; the transformer tells in ``skipped`` what it left out.

    Attributes:
        file: the tensors of the file.
        metadata: its settings.
        allow_skipping: whether what has no place is left out.
        elsewhere: what becomes of the tensors that go to other parts of the pipeline.
        skipped: names of what was left out.
    """

    file: dict[str, Traced]
    metadata: dict[str, Any] | None
    allow_skipping: bool
    elsewhere: dict[str, Traced] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


LOADING: ContextVar[Loading | None] = ContextVar("dvdq_lora_loading", default=None)


def only_where(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that say where to look for a file, taken out of ``kwargs``."""
    return {name: kwargs.pop(name, None) for name in _WHERE_TO_LOOK}


def fetch(
    source: Any, where: Mapping[str, Any], metadata: dict[str, Any] | None = None
) -> tuple[dict[str, Traced], dict[str, Any] | None]:
    """The tensors of an adapter's file, or of a dictionary, and its settings; a pickle is never read.

    Raises:
        DvdqError: nothing that can be read.
    """
    from diffusers.loaders.lora_base import _fetch_state_dict

    safe = {"use_safetensors": True, "allow_pickle": False}
    try:
        state, metadata = _fetch_state_dict(source, **where, **safe, user_agent={}, metadata=metadata)
    # The client of the hub and safetensors let errors of their own through.
    except Exception as error:
        expected = "an adapter (.safetensors) within reach"
        raise DvdqError(OPERATION, where=str(source), expected=expected, got=one_line(error)) from error
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor):
            raise DvdqError(OPERATION, where=str(name), expected="tensors", got=type(tensor).__name__)
    if isinstance(source, dict):  # converters multiply by alpha in place: the caller's tensors stay as they are
        state = {name: tensor.clone() for name, tensor in state.items()}
    return Traced.of(state), metadata


def register() -> None:
    """Take over ``load_lora_weights`` of all pipelines that have a transformer, once.

    Which of them can be quantized is not asked: where nothing is quantized, nothing changes.
    """
    from diffusers.loaders import lora_pipeline

    for mixin in vars(lora_pipeline).values():
        method = vars(mixin).get("load_lora_weights") if isinstance(mixin, type) else None
        if method is not None and "transformer" in mixin._lora_loadable_modules and method.__module__ != __name__:
            mixin.load_lora_weights = _checked(method)


def _checked(original: Any) -> Any:
    @functools.wraps(original)
    def load_lora_weights(
        self: Any, source: Any, adapter_name: str | None = None, hotswap: bool = False, **kwargs: Any
    ) -> tuple[str, ...] | None:
        expert = "transformer_2" if kwargs.get("load_into_transformer_2") else "transformer"
        transformer = getattr(self, expert, None)
        if transformer is None or not any(isinstance(module, QuantizedLinear) for module in transformer.modules()):
            original(self, source, adapter_name, hotswap, **kwargs)
            return None
        allow_skipping = kwargs.pop("allow_skipping", False)
        file, metadata = fetch(source, only_where(kwargs))
        if not file:
            raise DvdqError(OPERATION, where=type(self).__name__, expected="an adapter", got="no tensors")
        loading = Loading(file, metadata, allow_skipping)
        token = LOADING.set(loading)
        vars(self)["lora_state_dict"] = functools.partial(_converted, self, loading)
        try:
            original(self, dict(file), adapter_name, hotswap, **kwargs)
        except DvdqError:
            raise
        except (ArithmeticError, LookupError, NameError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            expected, got = "an adapter that diffusers can convert", f"{type(error).__name__}: {one_line(error)}"
            raise DvdqError(OPERATION, where=type(self).__name__, expected=expected, got=got) from error
        finally:
            del vars(self)["lora_state_dict"]
            LOADING.reset(token)
        return loading.skipped

    load_lora_weights.__module__ = __name__
    return load_lora_weights


def _converted(pipeline: Any, loading: Loading, *args: Any, **kwargs: Any) -> Any:
    """The pipeline's ``lora_state_dict``; what other parts of it take is set apart, and its place looked up."""
    converted = type(pipeline).lora_state_dict(*args, **kwargs)
    state, *settings = converted if isinstance(converted, tuple) else (converted,)
    others = [name for name in pipeline._lora_loadable_modules if name not in TRANSFORMERS]
    lacking = []
    for key, tensor in state.items():
        name, _, place = key.partition(".")
        if name in others and isinstance(tensor, Traced):
            part, layer = getattr(pipeline, name, None), place.partition(".lora_")[0]
            if part is not None and layer in dict(part.named_modules()):
                loading.elsewhere[key] = tensor
            elif loading.allow_skipping:
                lacking.append(key)
            else:
                raise DvdqError(OPERATION, where=key, expected=f"a layer of the pipeline's {name}", got="none")
    plain = {key: tensor.plain() for key, tensor in loading.elsewhere.items()}
    state = {key: tensor for key, tensor in (state | plain).items() if key not in lacking}
    return (state, *settings) if settings else state
