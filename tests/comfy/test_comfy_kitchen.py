"""Our files for ComfyUI in the hands of comfy-kitchen, whose eager backend is what its kernels are held to.

``nox -s comfy`` installs the version that the peers of dvdq-eval name; anywhere else these tests are left out.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import load_file

import dvdq_models
from dvdq_eval.peers import generate
from dvdq_eval.peers.generate import ComfyLinear, comfy_tensor
from dvdq_eval.peers.records import COMFY_W4A4, COMFY_W4A4_OURS, COMFY_W4A8, COMFY_W4A8_OURS, Peer
from dvdq_kernels import dequantize, quantize_weight
from dvdq_models import Recipe
from dvdq_models.comfyui import export_checkpoint
from dvdq_models.comfyui.bases import hadamard
from dvdq_models.comfyui.codebook import Codebook
from dvdq_models.comfyui.formats import Groups, SignedRows, comfy_quant
from dvdq_models.families import family_of
from dvdq_models.moving_shapes import HUNYUAN_VIDEO, WAN
from dvdq_reference.oracle import packing
from dvdq_reference.oracle.affine import Grid
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.oracle.linear import quantized_linear
from dvdq_reference.spec.recipe import ActivationRule, Rotation

tensor = pytest.importorskip("comfy_kitchen.tensor", reason="nox -s comfy installs it")
w4a8_packed = pytest.importorskip("comfy_kitchen.tensor.w4a8_packed", reason="nox -s comfy installs it")
eager = pytest.importorskip("comfy_kitchen.backends.eager.convrot_w4a4", reason="nox -s comfy installs it")

PIPELINES = Path(dvdq_models.__file__).parent / "moving_shapes" / "pipelines"
RECIPE = Recipe.named("convrot", "W4A4")
FLOAT32 = 2.0**-24


def layer_of(file: dict[str, torch.Tensor], layer: str, dtype: torch.dtype = torch.float32) -> Any:
    """A layer's quantized tensor, made of the keys that ComfyUI's loader reads and of no others."""
    own = {name.removeprefix(f"{layer}."): tensor for name, tensor in file.items() if name.rpartition(".")[0] == layer}
    codes = own["weight"]
    packed = json.loads(own["comfy_quant"].numpy().tobytes())["format"] != "int8_tensorwise"
    return comfy_tensor(own, (codes.shape[0], codes.shape[1] * (2 if packed else 1)), dtype)


def loaded(file: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The file as a state dictionary of full weights, decoded by comfy-kitchen."""
    layers = [name.removesuffix(".comfy_quant") for name in file if name.endswith(".comfy_quant")]
    parts = {f"{layer}.{part}" for layer in layers for part in ("comfy_quant", "weight_scale", "weight_zeros")}
    decoded = {}
    for layer in layers:
        decoded[f"{layer}.weight"] = layer_of(file, layer).dequantize()
    return {name: t for name, t in file.items() if name not in parts} | decoded


@pytest.fixture(scope="module")
def wan_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The bundled Wan model as a file for ComfyUI."""
    path = tmp_path_factory.mktemp("comfy") / "wan.safetensors"
    export_checkpoint(PIPELINES / "wan", path)
    return load_file(path)


def weights(pipeline: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Those of the transformer's linears whose activations are quantized."""
    transformer = pipeline.load().transformer
    for name, treatment in family_of(transformer).treatments(transformer).items():
        if treatment == "quantize":
            yield name, transformer.get_submodule(name).weight.detach().float()


def test_the_bundled_model_comes_back_as_the_weights_of_our_recipe(wan_file: dict[str, torch.Tensor]) -> None:
    """Through ComfyUI's names, comfy-kitchen's decoder and diffusers' converter; all that is no linear as it was."""
    transformer = WAN.load().transformer
    state = transformer.state_dict()
    back = convert_wan_transformer_to_diffusers(loaded(wan_file))
    assert back.keys() == state.keys()
    quantized = dict(weights(WAN))
    for name, found in back.items():
        layer = name.removesuffix(".weight")
        if layer not in quantized:
            assert torch.equal(found, state[name].to(found.dtype)), name
            continue
        ours = quantize_weight(state[name], RECIPE.weight, rotation=RECIPE.rotation)
        exact = dequantize(ours).double().numpy() @ rotation_matrix(ours.in_features, RECIPE.rotation).T
        # A product over a block of 256 in float32, of entries 1/16: no value of a block is larger than its sum / 16.
        blocks = np.abs(dequantize(ours).double().numpy()).reshape(len(exact), -1, 256).sum(axis=2) / 16
        allowed = np.repeat(gamma(256, FLOAT32) * blocks, 256, axis=1)
        assert (np.abs(found.double().numpy() - exact) <= allowed).all(), name


@pytest.mark.parametrize("size", [256, 64])
def test_signed_rows_are_decoded_to_the_bit(size: int) -> None:
    """In the rotated basis, where nothing is rounded but the one product: comfy-kitchen's codes times its scale."""
    weight = torch.randn(8, 3 * size, generator=torch.Generator().manual_seed(size))
    tensors = SignedRows(4, size).encode(weight)
    codes = eager.prepare_int4_weight_for_int8_linear(tensors["weight"])
    assert codes.dtype == torch.int8
    unsigned = packing.unpack(tensors["weight"].numpy().view(np.uint8), 4, weight.shape[1])
    np.testing.assert_array_equal(codes.numpy(), np.where(unsigned > 7, unsigned - 16, unsigned))
    if size == 256:
        ours = quantize_weight(weight, RECIPE.weight, rotation=RECIPE.rotation)
        theirs = eager._build_hadamard(256, dtype=torch.float64).numpy()
        change = np.rint(rotation_matrix(768, Rotation("regular")).T @ np.kron(np.eye(3), theirs))
        decoded = codes.float() * tensors["weight_scale"][:, None]
        np.testing.assert_array_equal(decoded.numpy(), dequantize(ours).numpy() @ change.astype(np.float32))


def test_groups_are_decoded_to_the_bit() -> None:
    """``s (q - 8) + o`` in float32: the product is exact, the sum rounded once."""
    weight = torch.randn(8, 192, generator=torch.Generator().manual_seed(0)) + 0.2
    tensors = Groups().encode(weight)
    layout = tensor.TensorCoreAWQW4A16Layout
    scale, zeros = tensors["weight_scale"], tensors["weight_zeros"]
    params = layout.Params(scale=scale, zeros=zeros, orig_dtype=torch.float32, orig_shape=(8, 192))
    decoded = layout.dequantize(tensors["weight"], params)
    codes = packing.unpack(tensors["weight"].numpy().view(np.uint8), 4, 192).reshape(8, 3, 64)
    s, o = (t.double().numpy().T[..., None] for t in (scale, zeros))
    np.testing.assert_array_equal(decoded.numpy(), ((codes - 8) * s + o).reshape(8, 192).astype(np.float32))


@pytest.mark.parametrize("size", [256, 16, None])
def test_eight_bits_are_decoded_within_a_rotation(size: int | None) -> None:
    weight = torch.randn(8, 768, generator=torch.Generator().manual_seed(0))
    tensors = SignedRows(8, size).encode(weight)
    file = {f"a.{name}": t for name, t in tensors.items()}
    file["a.comfy_quant"] = comfy_quant(SignedRows(8, size))
    found = layer_of(file, "a").dequantize()
    # Half a step of 127 on the largest of a row, which a rotation spreads over a block.
    step = tensors["weight_scale"] / 2
    error = (found - weight).view(8, -1, size or 1).norm(dim=2)
    assert (error <= step * (size or 1) ** 0.5 * 1.001).all()


def test_levels_are_decoded_and_multiplied_by_its_fast_way() -> None:
    """The codebook is the one that its kernels have built in, and no correction is there for it to read."""
    weight = torch.randn(32, 512, generator=torch.Generator().manual_seed(0))
    encoding = Codebook(256)
    file = {f"a.{name}": t for name, t in encoding.encode(weight).items()}
    assert torch.equal(file["a.weight_codebook"], w4a8_packed.default_w4a8_codebook())
    file["a.comfy_quant"] = comfy_quant(encoding)
    quantized = layer_of(file, "a")
    found = quantized.dequantize()
    theirs = tensor.QuantizedTensor.from_float(weight, "AsymW4A8Int8Layout").dequantize()
    assert (weight - found).norm() < 0.98 * (weight - theirs).norm()
    product = torch.nn.functional.linear(weight[:4], quantized)
    exact = weight[:4].double() @ found.double().T
    # Activations of 8 bits: each is off by at most half a step of their largest, and they meet weights at random.
    step = (weight[:4] @ torch.from_numpy(np.kron(np.eye(2), hadamard(256).numpy())).float()).abs().amax(dim=1) / 127
    assert (product - exact).abs().max() <= 6 * step.max() / 12**0.5 * found.norm(dim=1).max()


@pytest.mark.parametrize("bias", [False, True])
def test_its_linear_is_our_oracle(bias: bool) -> None:
    """On our bytes, in float64, where its codes are the oracle's: its scale of a token alone is rounded, to float32."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 512, generator=generator)
    x = torch.randn(9, 512, generator=generator, dtype=torch.float64) + 0.3
    added = torch.randn(24, generator=generator, dtype=torch.float64) if bias else None
    tensors = SignedRows(4, 256).encode(weight)
    found = eager.convrot_w4a4_linear(x, tensors["weight"], tensors["weight_scale"], added)
    ours = quantize_weight(weight, RECIPE.weight, rotation=RECIPE.rotation)
    codes = packing.unpack(ours.qweight.numpy(), 4, 512)
    grid = Grid(ours.scale.double().numpy(), np.full(ours.scale.shape, 8), 4)
    product = quantized_linear(x.numpy(), codes, grid, ActivationRule(4), rotation=RECIPE.rotation)
    expected = product if added is None else product + added.numpy()
    assert (np.abs(found.numpy() - expected) <= 1.01 * FLOAT32 * np.abs(product) + 1e-12).all()


def test_a_linear_with_our_bytes_takes_its_own_path(wan_file: dict[str, torch.Tensor]) -> None:
    """As ComfyUI calls it: ``F.linear`` on its quantized tensor is its eager operator, in each dtype that it takes."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(5, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
        weight = layer_of(wan_file, "blocks.0.ffn.0", dtype)
        found = torch.nn.functional.linear(x, weight)
        assert found.dtype == dtype
        assert torch.equal(found, eager.convrot_w4a4_linear(x, *weight.layout_cls.get_plain_tensors(weight)))


@pytest.mark.parametrize("pipeline", [WAN, HUNYUAN_VIDEO], ids=["wan", "hunyuan-video"])
def test_codes_are_better_than_its_own_in_the_same_bytes(pipeline: Any) -> None:
    """On every third layer of both bundled models."""
    for name, weight in list(weights(pipeline))[::3]:
        ours, theirs = errors(weight)
        assert ours < theirs, name


@pytest.mark.parametrize("degrees", [None, 4], ids=["normal", "student-4"])
def test_codes_of_wide_layers_have_a_fifth_less_error(degrees: int | None) -> None:
    """As wide as Wan's 14B: normal weights, and rows with tails, which a rotation of 256 makes shorter, not normal."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((48, 5120)) if degrees is None else rng.standard_t(degrees, (48, 5120))
    ours, theirs = errors(torch.from_numpy(values).float())
    assert ours <= 0.8 * theirs


@pytest.mark.parametrize("peer", [COMFY_W4A4, COMFY_W4A8, COMFY_W4A4_OURS, COMFY_W4A8_OURS], ids=lambda p: p.label)
def test_the_peer_quantizes_what_it_is_asked_to(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each linear of the bundled model by comfy-kitchen's operators, from its own codes or from ours."""
    # What the peer's process sets for itself.
    monkeypatch.setattr(torch, "_int_mm", torch._int_mm)
    transformer = copy.deepcopy(WAN.load().transformer)
    treatments = family_of(transformer).treatments(transformer)
    original = {name: transformer.get_submodule(name) for name in treatments}
    assert peer.give is not None
    assert peer.options is not None
    peer.give(transformer, treatments, peer.options, tmp_path / "layers")
    chosen = {
        kind: [name for name, found in treatments.items() if found == kind] for kind in ("quantize", "weight-only")
    }
    job = {"peer": peer.name, "quantize": chosen["quantize"], "weight_only": chosen["weight-only"]}
    counts = generate.quantize(transformer, job | {"options": {**peer.options, "layers": str(tmp_path / "layers")}})
    # Rows of 256 to 1024 with a scale of four bytes; groups of 16 with one byte more, and sixteen levels a layer.
    bits = 8 * counts["stored_bytes"] / counts["weights"]
    assert 4.03 < bits < 4.2 if peer.options["format"] == "convrot_w4a4" else 4.5 < bits < 4.7
    assert counts["layers"] == len(job["quantize"]) + len(job["weight_only"])
    for name in (*job["quantize"][:5], *job["weight_only"][:1]):
        layer, linear = transformer.get_submodule(name), original[name]
        assert isinstance(layer, ComfyLinear)
        decoded = layer.quantized.dequantize()
        if name in job["quantize"]:
            encoding = SignedRows(4, 256) if peer.options["format"] == "convrot_w4a4" else Codebook(256)
            ours = encoding.encode(linear.weight.detach())
            assert torch.equal(layer.codes, ours["weight"]) == (peer.options["codes"] == "ours")
        x = torch.randn(7, linear.in_features, generator=torch.Generator().manual_seed(0))
        found, exact = layer(x), torch.nn.functional.linear(x, decoded, linear.bias)
        assert found.dtype == x.dtype
        # Activations of four bits on [-7, 7], of eight, or in bfloat16.
        allowed = 0.2 if peer.options["format"] == "convrot_w4a4" else 0.02
        assert (found - exact).norm() <= (allowed if name in job["quantize"] else 2**-7) * exact.norm(), name


def errors(weight: torch.Tensor) -> tuple[float, float]:
    """``|W - Ŵ| / |W|`` of our codes and of comfy-kitchen's, decoded by it; the bytes are the same."""
    tensors = SignedRows(4, 256).encode(weight)
    ours = tensors["weight"], tensors["weight_scale"]
    theirs = eager.quantize_convrot_w4a4_weight(weight)
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]
    found = (eager.dequantize_convrot_w4a4_weight(*each) for each in (ours, theirs))
    first, second = (float((weight - w).norm() / weight.norm()) for w in found)
    return first, second
