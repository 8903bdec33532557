"""The formats of ComfyUI's files: codes on their grids and in their basis, by the descriptions of the formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dvdq_kernels import quantize_weight
from dvdq_models import Recipe
from dvdq_models.checkpoint.layout import TensorType
from dvdq_models.comfyui import codebook
from dvdq_models.comfyui.bases import hadamard, rotate
from dvdq_models.comfyui.codebook import Codebook
from dvdq_models.comfyui.formats import Encoding, Groups, SignedRows, activations_too, comfy_quant, weight_only
from dvdq_reference.oracle import codebook as codebook_oracle
from dvdq_reference.oracle import feedback as feedback_oracle
from dvdq_reference.oracle.hadamard import rotation_matrix
from dvdq_reference.spec.recipe import Rotation, WeightRule


def signed(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of a file, int64 ``[out, in]``, by the description of the format."""
    if bits == 8:
        return weight.long()
    unsigned = weight.view(torch.uint8).long()
    nibbles = torch.stack((unsigned % 16, unsigned // 16), dim=2).flatten(1)
    return torch.where(nibbles > 7, nibbles - 16, nibbles)


@pytest.mark.parametrize("size", [4, 16, 64, 256])
def test_the_rotation_is_regular(size: int) -> None:
    """Symmetric, orthonormal, and every row has the same sum: by its properties."""
    h = hadamard(size).double()
    assert torch.equal(h, h.T)
    assert torch.equal(h @ h, torch.eye(size, dtype=torch.float64))
    assert torch.equal(h.sum(dim=0), torch.ones(size, dtype=torch.float64))


def test_codes_are_those_of_our_recipe_in_the_other_basis(tmp_path: Path) -> None:
    """``u' = u Rᵀ H``, a signed permutation, and the same scales: both are one weight, to the bit."""
    weight = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    recipe = Recipe.named("convrot", "W4A4")
    ours = quantize_weight(weight, recipe.weight, rotation=recipe.rotation)
    theirs = SignedRows(4, 256).encode(weight)
    regular = np.kron(np.eye(2), hadamard(256).double().numpy())
    change = np.rint(rotation_matrix(512, Rotation("regular")).T @ regular)
    assert (np.abs(change).sum(axis=0) == 1).all()
    codes = signed(ours.qweight.view(torch.int8), 4).numpy() % 16 - 8  # ours are unsigned
    np.testing.assert_array_equal(signed(theirs["weight"], 4).numpy(), codes @ change)
    assert torch.equal(theirs["weight_scale"], ours.scale[:, 0])


@pytest.mark.parametrize(
    ("encoding", "width"), [(SignedRows(4, 64), 192), (SignedRows(8, 256), 256), (SignedRows(8, 16), 48)]
)
def test_a_row_is_its_scale_times_codes_in_the_rotated_basis(encoding: SignedRows, width: int) -> None:
    """Every code is the nearest to ``W H`` in float64, but where float32 cannot tell; -2^(b-1) is not used."""
    weight = torch.randn(7, width, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 7)[:, None]
    tensors = encoding.encode(weight)
    scale = tensors["weight_scale"].double().view(-1, 1)
    codes, largest = signed(tensors["weight"], encoding.bits), 2 ** (encoding.bits - 1) - 1
    assert encoding.size is not None
    rotated = (weight.double().view(7, -1, encoding.size) @ hadamard(encoding.size).double()).view(7, -1)
    exact = rotated / scale
    # A float32 product over a block: each of its terms is rounded, and so is each sum.
    slack = encoding.size * 2.0**-23 * weight.abs().amax(dim=1, keepdim=True).double() * encoding.size**0.5 / scale
    nearest = exact.clamp(-largest, largest)
    assert ((codes - nearest).abs() <= 0.5 + slack).all()
    assert codes.abs().max() == largest


@pytest.mark.parametrize(
    ("encoding", "tensors", "fields"),
    [
        (SignedRows(4, 256, "int8"), {"weight", "weight_scale"}, {"convrot_groupsize", "linear_dtype"}),
        (SignedRows(8, 256), {"weight", "weight_scale"}, {"convrot", "convrot_groupsize"}),
        (Groups(), {"weight", "weight_scale", "weight_zeros"}, {"group_size"}),
        (
            Codebook(256),
            {"weight", "weight_s_rel", "weight_s_channel", "weight_codebook"},
            {"group_size", "convrot_groupsize"},
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_a_layer_has_what_the_loader_reads_and_nothing_else(
    encoding: Encoding, tensors: set[str], fields: set[str]
) -> None:
    """The names are those of ``_load_quantized_module`` in ComfyUI's comfy/ops.py (0271a469fe29)."""
    made = encoding.encode(torch.randn(16, 256, generator=torch.Generator().manual_seed(0)))
    assert set(made) == tensors
    assert {name: TensorType(tuple(t.shape), t.dtype) for name, t in made.items()} == encoding.types(16, 256)
    said = json.loads(comfy_quant(encoding).numpy().tobytes())
    assert set(said) == fields | {"format"}


@pytest.mark.parametrize("size", [256, 16])
def test_levels_are_the_nearest_through_their_rounding(size: int) -> None:
    """Each code's integer is the nearest of its group's sixteen, and no other number of float8 does better by much."""
    weight = torch.randn(4, 2 * size, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 4)[:, None]
    weight[1, :16] = 0.0
    tensors = Codebook(size).encode(weight)
    assert {name: TensorType(tuple(t.shape), t.dtype) for name, t in tensors.items()} == Codebook(size).types(
        4, 2 * size
    )
    codes = (signed(tensors["weight"], 4) % 16).view(4, -1, 16)
    channel = tensors["weight_s_channel"].double()[:, None, None]
    target = (weight.view(4, -1, size) @ hadamard(size)).view(4, -1, 16).double() / channel

    def integers(relative: torch.Tensor) -> torch.Tensor:
        return (tensors["weight_codebook"] * relative.float()[..., None]).round().clamp(-127, 127).double()

    def error(relative: torch.Tensor) -> torch.Tensor:
        return (target[..., None] - integers(relative)[..., None, :]).abs().amin(dim=3).square().sum(dim=2)

    relative = tensors["weight_s_rel"]
    made = integers(relative).gather(2, codes)
    assert torch.allclose((target - made).square().sum(dim=2), error(relative), rtol=1e-5, atol=1e-4)
    raw = relative.view(torch.uint8)
    for step in (-2, -1, 1, 2):
        other = (raw.int() + step).clamp(1, 126).to(torch.uint8).view(torch.float8_e4m3fn)
        assert error(relative).sum() <= error(other).sum()


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_search_of_levels_is_the_oracles(spread: float) -> None:
    """In float64 each code and float8; in float32, where near ties fall otherwise, the error within a thousandth."""
    generator = torch.Generator().manual_seed(0)
    rotated = torch.randn(6, 256, generator=generator, dtype=torch.float64)
    rotated *= torch.logspace(0, -spread, 16, dtype=torch.float64).repeat_interleave(16)
    rotated[1, :32] = 0
    expected = codebook_oracle.search(rotated.numpy())
    codes, relative, channel = codebook._search(rotated)
    np.testing.assert_array_equal(codes.numpy(), expected.codes)
    np.testing.assert_array_equal(relative.double().numpy(), expected.relative)
    np.testing.assert_allclose(channel.numpy(), expected.channel, rtol=1e-13)

    def error(codes: Any, relative: Any, channel: Any) -> Any:
        return np.linalg.norm(codebook_oracle.decode(codes, relative, channel) - rotated.numpy(), axis=1)

    single = [part.double().numpy() for part in codebook._search(rotated.float())]
    single[0] = single[0].astype(np.int64)
    best = error(expected.codes, expected.relative, expected.channel)
    assert (np.abs(error(*single) - best) <= 1e-3 * best).all()


def test_groups_hold_what_the_loader_adds_up() -> None:
    """``W ≈ s (q - 8) + o`` with what is stored, each code the nearest, in at most half a step but where BGR clips."""
    weight = torch.randn(6, 192, generator=torch.Generator().manual_seed(0)) + 0.3
    tensors = Groups().encode(weight)
    scale, offset = (tensors[name].float().T for name in ("weight_scale", "weight_zeros"))
    assert scale.shape == (6, 3)
    unsigned = signed(tensors["weight"], 4) % 16
    levels = torch.arange(16.0) - 8
    values = scale[..., None, None] * levels + offset[..., None, None]
    distance = (weight.view(6, 3, 64, 1) - values).abs()
    chosen = distance.gather(3, unsigned.view(6, 3, 64, 1))[..., 0]
    assert torch.allclose(chosen, distance.amin(dim=3), rtol=0, atol=float(2**-20))
    bgr = quantize_weight(weight, WeightRule(4, "bgr", 64))
    assert ((bgr.scale - scale).abs() <= bgr.scale * 2**-8).all()


def levels_of(encoding: Any, tensors: dict[str, torch.Tensor], width: int) -> torch.Tensor:
    """What each channel's codes stand for, float64 ``[out, in, codes]``, by the description of the format."""
    if isinstance(encoding, SignedRows):
        largest = 2 ** (encoding.bits - 1) - 1
        values = tensors["weight_scale"].double().view(-1, 1, 1) * torch.arange(-largest, largest + 1)
        return values.expand(-1, width, -1)
    if isinstance(encoding, Groups):
        scale, offset = (tensors[name].double().T[..., None] for name in ("weight_scale", "weight_zeros"))
        return (scale * (torch.arange(16) - 8) + offset).repeat_interleave(64, dim=1)
    made = (tensors["weight_codebook"] * tensors["weight_s_rel"].float()[..., None]).round().clamp(-127, 127)
    return (made.double() * tensors["weight_s_channel"].double()[:, None, None]).repeat_interleave(16, dim=1)


@pytest.mark.parametrize(
    "encoding",
    [SignedRows(4, 256), SignedRows(4, 64), SignedRows(8, 16), SignedRows(8, None), Groups(), Codebook(64)],
    ids=lambda encoding: f"{encoding.config['format']}-{getattr(encoding, 'size', None)}",
)
def test_with_moments_each_code_makes_up_for_those_before_it(encoding: Any) -> None:
    """The grids stay; each code is the nearest to what GPTQ has made of its channel, and the outputs err less."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 24, generator=generator) @ torch.randn(24, 256, generator=generator)
    x += 0.2 * torch.randn(600, 256, generator=generator)
    weight = torch.randn(7, 256, generator=generator)
    plain, fed = encoding.encode(weight), encoding.encode(weight, moments=x.T @ x)
    assert all(torch.equal(plain[name], fed[name]) for name in plain if name != "weight")
    size = getattr(encoding, "size", None)
    basis = torch.eye(256, dtype=torch.float64)
    if size is not None:
        basis = torch.block_diag(*[hadamard(size).double()] * (256 // size))
    if size == 256:  # channel after channel of our own basis, whose columns have another order and other signs
        change = torch.from_numpy(np.rint(basis.numpy() @ rotation_matrix(256, Rotation("regular"))))
        order = change.abs().argmax(dim=0)
    else:
        order = torch.arange(256)
    basis = basis[:, order]
    rotated = (weight if size is None else rotate(weight, size)).double()[:, order]
    moments = basis.T @ (x.T @ x).double() @ basis
    upper = torch.from_numpy(np.linalg.cholesky(np.linalg.inv(feedback_oracle.damped(moments.numpy()))).T.copy())
    levels = levels_of(encoding, fed, 256)[:, order]

    def values(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        bits = 8 if tensors["weight"].shape[1] == 256 else 4
        codes = signed(tensors["weight"], bits)
        places = codes + levels.shape[2] // 2 if isinstance(encoding, SignedRows) else codes % 16
        return levels.gather(2, places[:, order, None])[..., 0]

    shifted, found = rotated.clone(), values(fed)
    for j in range(256):
        distance = (levels[:, j] - shifted[:, j, None]).abs().amin(dim=1)
        slack = 1e-6 * levels[:, j].abs().amax(dim=1)  # the rotation is of float32
        assert ((found[:, j] - shifted[:, j]).abs() <= distance + slack).all(), j
        error = (shifted[:, j] - found[:, j]) / upper[j, j]
        shifted[:, j + 1 :] -= error[:, None] * upper[j, j + 1 :]

    def output_error(tensors: dict[str, torch.Tensor]) -> float:
        left = rotated - values(tensors)
        return float(((left @ moments) * left).sum())

    assert output_error(fed) < 0.7 * output_error(plain)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (5120, {"format": "convrot_w4a4", "convrot_groupsize": 256}),
        (192, {"format": "convrot_w4a4", "convrot_groupsize": 64}),
        (48, {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 16}),
        (50, {"format": "int8_tensorwise"}),
    ],
)
def test_a_width_that_does_not_fit_gets_eight_bits(width: int, expected: dict[str, Any]) -> None:
    assert activations_too("convrot_w4a4", width).config == expected
    wider = expected | ({"linear_dtype": "int8"} if expected["format"] == "convrot_w4a4" else {})
    assert activations_too("convrot_w4a4", width, "int8").config == wider
    eight = activations_too("convrot_w4a4" if width % 64 == 50 else "int8_tensorwise", width)
    assert eight.config["format"] == "int8_tensorwise"
    only = weight_only(width).config
    assert only["format"] == ("awq_w4a16" if width % 64 == 0 else "int8_tensorwise")
