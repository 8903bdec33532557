"""What a peer's own Python runs: quantize a pipeline's transformer with the peer, and write videos.

``python -I generate.py JOB.json``, written by ``run.py``, whose environment knows nothing of dvdq. The job::

    {"peer": "orbitquant", "options": {…} or null, "quantize": [module names], "weight_only": [module names],
     "pipeline_folder": …, "pipeline_class": "WanPipeline", "dtype": "float32", "threads": 1,
     "settings": {arguments of the pipeline's call}, "videos": [{"prompt": …, "seed": …, "path": …}, …]}

Without options, the transformer stays in full precision. A video is an ``.npz`` that appears complete or not at all:
``frames`` float32 ``[frames, height, width, 3]`` in ``[0, 1]`` and ``latents`` float32 ``[channels, time, h, w]``; one
that is there already is left. Standard output has JSON alone: first ``{"quantized": …}``, as :func:`measure_storage`
has it, with seconds and versions, then for each video ``{"video": its place, "seconds": …}``, null if it was there.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn


def quantize_with_orbitquant(
    transformer: nn.Module, names: Sequence[str], weight_only: Sequence[str], options: Mapping[str, Any]
) -> int:
    """Rotated Lloyd-Max weights with a bfloat16 norm a row; ``weight_only`` as its recipe for modulation: int4 by 64.

    Its CPU path is the reference one: activations are rounded to the codebook's values, token by token, but multiplied
    as floats with weights that are decoded once. Returns bytes of weight codebooks, one for each width of input.
    """
    orbitquant = importlib.import_module("orbitquant")
    config = orbitquant.recipe(
        options["recipe"],
        # A plain name would also match as a part of a longer one; a pattern has to match all of it.
        modules_to_convert=[f"[{name[0]}]{name[1:]}" for name in names],
        modules_to_use_adaln=[f"[{name[0]}]{name[1:]}" for name in weight_only],
        runtime_mode="dequant_bf16",
    )
    orbitquant.quantize_model(transformer, config, quantization_device="cpu")
    codebooks = {}
    for name in names:
        layer: Any = transformer.get_submodule(name)
        codebooks[layer.in_features] = layer.weight_codebook.centroids.nbytes
    return sum(codebooks.values())


def quantize_with_sdnq(
    transformer: nn.Module, names: Sequence[str], weight_only: Sequence[str], options: Mapping[str, Any]
) -> int:
    """Min-max weights with float32 scale and minimum a group; all its layers keep full activations.

    Weights are decoded at every call and multiplied as floats. Returns 0: all that it stores is in its layers.
    """
    sdnq = importlib.import_module("sdnq")
    chosen = {*names, *weight_only}
    sdnq.sdnq_post_load_quant(
        transformer,
        **options,
        add_skip_keys=False,
        minimum_allowed_numel=1,
        minimum_allowed_channel_size=1,
        modules_to_not_convert=[f"{name}.weight" for name in linears(transformer) if name not in chosen],
    )
    return 0


COMFY_LAYOUTS = {
    "convrot_w4a4": "TensorCoreConvRotW4A4Layout",
    "asym_w4a8_int8": "AsymW4A8Int8Layout",
    "int8_tensorwise": "TensorWiseINT8Layout",
    "awq_w4a16": "TensorCoreAWQW4A16Layout",
}
"""The class of comfy-kitchen that a format of ComfyUI is read with."""
_COMFY_FIELDS = {
    "weight_scale": "scale",
    "weight_zeros": "zeros",
    "weight_s_rel": "scale",
    "weight_s_channel": "s_channel",
    "weight_codebook": "codebook",
}


def comfy_tensor(tensors: Mapping[str, torch.Tensor], shape: Sequence[int], dtype: torch.dtype) -> Any:
    """comfy-kitchen's quantized tensor of one layer of a file for ComfyUI, as ComfyUI's loader makes it.

    ``tensors`` has the names of :mod:`dvdq_models.comfyui.formats`; ``shape`` and ``dtype`` are the decoded weight's.
    """
    package = importlib.import_module("comfy_kitchen.tensor")
    config = json.loads(tensors["comfy_quant"].numpy().tobytes())
    name = COMFY_LAYOUTS[config.pop("format")]
    fields = {_COMFY_FIELDS[key]: t for key, t in tensors.items() if key in _COMFY_FIELDS}
    params = package.get_layout_class(name).Params(orig_dtype=dtype, orig_shape=tuple(shape), **fields, **config)
    return package.QuantizedTensor(tensors["weight"], name, params)


class ComfyLinear(nn.Module):
    """A linear whose weight is a quantized tensor of comfy-kitchen, which takes ``F.linear`` to its own operators."""

    def __init__(self, weight: Any, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.quantized, self.bias = weight, bias
        for name, tensor in weight.layout_cls.state_dict_tensors(weight._qdata, weight.params).items():
            self.register_buffer(f"codes{name}", tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x Wᵀ + bias`` in the dtype of ``x``."""
        product: torch.Tensor = nn.functional.linear(x, self.quantized, self.bias)
        return product.to(x.dtype)


def multiply_integers(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``torch._int_mm`` on a CPU: int8 ``[m, k]`` by ``[k, n]`` to int32, by floats that hold every sum of it exactly.

    Torch's own is a loop of single products where the processor has no instructions for it, ten times as slow.
    """
    exact = torch.float32 if a.shape[1] * 128**2 <= 2**24 else torch.float64
    return (a.to(exact) @ b.to(exact)).to(torch.int32)


def quantize_with_comfy_kitchen(
    transformer: nn.Module, names: Sequence[str], weight_only: Sequence[str], options: Mapping[str, Any]
) -> int:
    """Every linear as ``options["layers"]`` says, a file with ``comfy_quant`` of each and of some the codes, too.

    Where there are none, its own quantizer makes them. On a CPU its eager operators multiply. Returns 0.
    """
    package = importlib.import_module("comfy_kitchen.tensor")
    vars(torch)["_int_mm"] = multiply_integers
    layers: dict[str, dict[str, torch.Tensor]] = {name: {} for name in (*names, *weight_only)}
    for key, tensor in load_file(options["layers"]).items():
        name, _, part = key.rpartition(".")
        layers[name][part] = tensor
    for name, tensors in layers.items():
        linear: Any = transformer.get_submodule(name)
        weight = linear.weight.detach()
        if "weight" in tensors:
            quantized = comfy_tensor(tensors, weight.shape, weight.dtype)
        else:
            config = json.loads(tensors["comfy_quant"].numpy().tobytes())
            layout = COMFY_LAYOUTS[config.pop("format")]
            quantized = package.QuantizedTensor.from_float(weight, layout, per_channel=True, **config)
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, ComfyLinear(quantized, linear.bias))
    return 0


Quantize = Callable[[nn.Module, Sequence[str], Sequence[str], Mapping[str, Any]], int]
QUANTIZE: dict[str, Quantize] = {
    "orbitquant": quantize_with_orbitquant,
    "sdnq": quantize_with_sdnq,
    "comfy-kitchen": quantize_with_comfy_kitchen,
}


def linears(transformer: nn.Module) -> dict[str, int]:
    """The number of weights of each linear that is not quantized, by module name."""
    return {name: m.weight.numel() for name, m in transformer.named_modules() if type(m) is nn.Linear}


def quantize(transformer: nn.Module, job: Mapping[str, Any]) -> dict[str, Any]:
    """Quantize as the job says and count: layers, their weights, and the bytes that stand for these.

    Raises:
        ValueError: the peer replaced other linears than it was asked to.
    """
    if job["options"] is None:
        return {"layers": 0, "weights": 0, "stored_bytes": 0}
    before = linears(transformer)
    tables = QUANTIZE[job["peer"]](transformer, job["quantize"], job["weight_only"], job["options"])
    replaced = before.keys() - linears(transformer).keys()
    wrong = sorted(replaced.symmetric_difference([*job["quantize"], *job["weight_only"]]))
    if wrong:
        raise ValueError(f"{job['peer']} and the job disagree about {len(wrong)} linears, {wrong[0]} among them")
    return {
        "layers": len(replaced),
        "weights": sum(before[name] for name in replaced),
        "stored_bytes": tables + sum(stored_bytes(transformer.get_submodule(name)) for name in replaced),
    }


def stored_bytes(layer: nn.Module) -> int:
    """Bytes of all that the layer would write to a checkpoint but its bias: codes, scales, minima, norms."""
    return sum(tensor.nbytes for name, tensor in layer.state_dict().items() if name != "bias")


def generate(pipeline: Any, prompt: str, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One video from the noise of ``seed``: frames and final latents. ``dvdq_eval`` makes its own with it, too."""
    latents: list[torch.Tensor] = []

    def keep(_: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents[:] = [values["latents"]]
        return values

    frames = pipeline(
        prompt=prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        callback_on_step_end=keep,
        **settings,
    ).frames[0]
    return {"frames": np.asarray(frames, dtype=np.float32), "latents": latents[0][0].float().cpu().numpy()}


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """An ``.npz`` under its name only once it is whole."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def versions(peer: str) -> dict[str, str]:
    """Of Python and of what computes here."""
    found = {"python": platform.python_version()}
    for name in (peer, "torch", "diffusers", "transformers", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def main(job: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """Do the job; ``tell`` is told what goes to standard output."""
    torch.set_num_threads(job["threads"])
    pipeline_class = getattr(diffusers, job["pipeline_class"])
    pipeline = pipeline_class.from_pretrained(job["pipeline_folder"], dtype=getattr(torch, job["dtype"]))
    pipeline.set_progress_bar_config(disable=True)
    started = time.perf_counter()
    counts = quantize(pipeline.transformer, job)
    tell({"quantized": {**counts, "seconds": time.perf_counter() - started, "versions": versions(job["peer"])}})
    for place, video in enumerate(job["videos"]):
        path, seconds = Path(video["path"]), None
        if not path.exists():
            started = time.perf_counter()
            arrays = generate(pipeline, video["prompt"], video["seed"], job["settings"])
            seconds = time.perf_counter() - started
            write(path, arrays)
        tell({"video": place, "seconds": seconds})


if __name__ == "__main__":
    # Whatever a library prints, in Python or below it, goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)

        def tell(values: dict[str, Any]) -> None:
            """One line."""
            stdout.write(json.dumps(values) + "\n")
            stdout.flush()

        main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), tell)
