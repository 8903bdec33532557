"""Quantized checkpoints: a normal diffusers folder whose safetensors hold packed codes.

``config.json`` says under ``quantization_config`` which recipe made it, in which format, and the SHA-256 of each
weight file. A folder is written beside its final name and renamed when it is complete, so a name never stands for
half a checkpoint. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import DiffusionPipeline
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from dvdq_models.apply import swap_linears
from dvdq_models.bit_switching import hook_of
from dvdq_models.families import transformer_class
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import Recipe

METHOD = "dvd-quant"
FORMAT = 1
"""Version of what the tensors mean; a reader refuses a newer one."""
MAX_SHARD = "5GB"
WEIGHTS = "diffusion_pytorch_model"


def save(transformer: Any, folder: str | Path) -> Path:
    """Write a quantized transformer to ``folder``, which must not exist yet."""
    recipe = hook_of(transformer).recipe
    state = {name: tensor.contiguous() for name, tensor in transformer.state_dict().items()}
    with _complete_or_nothing(Path(folder)) as staging:
        save_torch_state_dict(
            state, staging, filename_pattern=f"{WEIGHTS}{{suffix}}.safetensors", max_shard_size=MAX_SHARD
        )
        config = json.loads(transformer.to_json_string())
        config["quantization_config"] = {
            "quant_method": METHOD,
            "format": FORMAT,
            "recipe": recipe.to_dict(),
            "sha256": {file.name: _sha256(file) for file in sorted(staging.glob("*.safetensors"))},
        }
        (staging / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return Path(folder)


def load(folder: str | Path, *, backend: str = "auto", dtype: torch.dtype | None = None) -> nn.Module:
    """The transformer that :func:`save` wrote, in evaluation mode on the CPU.

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
    config, quantization = _read_config(folder)
    model_class = transformer_class("load", folder, config)
    with init_empty_weights(include_buffers=False):
        transformer = model_class.from_config(config)
    layers = swap_linears(transformer, Recipe.from_dict(quantization["recipe"]), backend=backend)
    for layer_name, (_, layer) in layers.items():
        transformer.set_submodule(layer_name, layer)
    state = _read_tensors(folder, quantization["sha256"])
    _check_tensors(folder, transformer.state_dict(), state)
    if dtype is not None:
        kept = (*(transformer._keep_in_fp32_modules or ()), "scale")
        for key, tensor in state.items():
            if tensor.is_floating_point() and not any(part in kept for part in key.split(".")):
                state[key] = tensor.to(dtype)
    transformer.load_state_dict(state, strict=True, assign=True)
    transformer.requires_grad_(False)
    loaded: nn.Module = transformer.eval()
    return loaded


def save_pipeline(source: str | Path, transformer: nn.Module, folder: str | Path) -> Path:
    """Write the pipeline folder ``source`` to ``folder`` with ``transformer`` in its transformer's place."""
    source = Path(source)
    with _complete_or_nothing(Path(folder)) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True, ignore=_not_the_transformer(source))
        save(transformer, staging / "transformer")
    return Path(folder)


def load_pipeline(folder: str | Path, *, backend: str = "auto", **kwargs: Any) -> DiffusionPipeline:
    """The pipeline in ``folder``, its transformer quantized or not; ``kwargs`` go to diffusers' ``from_pretrained``.

    A ``dtype`` among them holds for the transformer too, as in :func:`load`.
    """
    folder = Path(folder)
    index = folder / "model_index.json"
    if not index.is_file():
        raise DvdqError("load", where=str(folder), expected="a pipeline folder", got="no model_index.json")
    # The class itself, because DiffusionPipeline would load Wan's transformer again although it is given one:
    # it is optional there, and only the class knows its own optional parts.
    pipeline_class = getattr(diffusers, json.loads(index.read_text())["_class_name"])
    if is_quantized(folder):
        kwargs["transformer"] = load(folder / "transformer", backend=backend, dtype=kwargs.get("dtype"))
    return pipeline_class.from_pretrained(str(folder), **kwargs)


def stored_dtype(folder: str | Path) -> torch.dtype:
    """The dtype of most tensors in a transformer's folder, which diffusers does not look up by itself."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise DvdqError("load", where=str(folder), expected="safetensors files", got="none")
    try:
        with safe_open(files[0], framework="pt") as file:
            counts: Counter[torch.dtype] = Counter(file.get_tensor(name).dtype for name in islice(file.keys(), 64))
    except SafetensorError as error:
        raise DvdqError("load", where=str(files[0]), expected="a safetensors file", got=str(error)) from error
    return counts.most_common(1)[0][0]


def is_quantized(folder: str | Path) -> bool:
    """Whether ``folder`` holds a quantized transformer, or a pipeline with one."""
    for candidate in (Path(folder), Path(folder) / "transformer"):
        config = candidate / "config.json"
        if config.is_file():
            return "quantization_config" in json.loads(config.read_text())
    return False


@contextmanager
def _complete_or_nothing(folder: Path) -> Iterator[Path]:
    """A staging folder that becomes ``folder`` if the block succeeds, and vanishes if it does not."""
    if folder.exists():
        raise DvdqError("save", where=str(folder), expected="a folder that does not exist yet", got="one that does")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.part")
    staging.mkdir()
    try:
        yield staging
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _not_the_transformer(source: Path) -> Any:
    def ignore(directory: str, names: list[str]) -> list[str]:
        return ["transformer"] if Path(directory) == source and "transformer" in names else []

    return ignore


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = folder / "config.json"
    if not path.is_file():
        raise DvdqError("load", where=str(folder), expected="a folder with a config.json", got="none")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise DvdqError("load", where=str(path), expected="JSON", got=str(error)) from error
    quantization = config.pop("quantization_config", None)
    if not isinstance(quantization, dict) or quantization.get("quant_method") != METHOD:
        found = quantization.get("quant_method") if isinstance(quantization, dict) else "no quantization_config"
        raise DvdqError("load", where=str(path), expected=f"a checkpoint quantized by {METHOD}", got=found)
    if quantization.get("format") != FORMAT:
        raise DvdqError("load", where=str(path), expected=f"format {FORMAT}", got=quantization.get("format"))
    return config, quantization


def _read_tensors(folder: Path, checksums: dict[str, str]) -> dict[str, torch.Tensor]:
    present = {file.name for file in folder.glob("*.safetensors")}
    if present != set(checksums):
        raise DvdqError("load", where=str(folder), expected=f"files {sorted(checksums)}", got=sorted(present))
    state: dict[str, torch.Tensor] = {}
    for name, expected in checksums.items():
        path = folder / name
        if (found := _sha256(path)) != expected:
            got = f"{found[:12]}…, {path.stat().st_size} bytes"
            raise DvdqError("load", where=str(path), expected=f"SHA-256 {expected[:12]}…", got=got)
        try:
            with safe_open(path, framework="pt") as file:
                # Cloned because BLAS takes another path, and so rounds otherwise, on memory that is not aligned.
                state.update({key: file.get_tensor(key).clone() for key in file.keys()})  # noqa: SIM118
        except SafetensorError as error:
            raise DvdqError("load", where=str(path), expected="a safetensors file", got=str(error)) from error
    return state


def _check_tensors(folder: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise DvdqError("load", where=str(folder), expected=f"tensor {missing[0]}", got=f"{len(missing)} missing")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise DvdqError("load", where=str(folder), expected="no other tensors", got=unexpected[0])
    for name, wanted in expected.items():
        got = found[name]
        same_dtype = got.dtype == wanted.dtype or (got.is_floating_point() and not name.endswith(".scale"))
        if got.shape != wanted.shape or not same_dtype:
            raise DvdqError(
                "load",
                where=f"{folder}: {name}",
                expected=f"{wanted.dtype} {list(wanted.shape)}",
                got=f"{got.dtype} {list(got.shape)}",
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
