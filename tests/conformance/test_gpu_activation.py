"""What conformance does not ask of rotated tiles: neighbours of a NaN, extreme magnitudes, every size and alignment."""

from __future__ import annotations

import pytest
import torch

import dvdq_kernels as kernels
from conformance import cases
from conformance.checks import poisoned
from conformance.test_backends import places
from dvdq_reference.oracle import bounds, hadamard
from dvdq_reference.spec.bits import signed_range
from dvdq_reference.spec.recipe import ActivationRule, Rotation

PLACES = [place for place in places("rotate", "rotate_quantize") if place[0] in ("triton", "cupy")]
pytestmark = pytest.mark.parametrize(("backend", "device"), PLACES)
FULL, BLOCK, REGULAR = Rotation("full"), Rotation("block"), Rotation("regular")


def check_codes(x: torch.Tensor, rule: ActivationRule, rotation: Rotation | None, backend: str, device: str) -> None:
    """Each code is within half a step of the exact ``x̃ / s``, s being the scale that came with it, and float32."""
    with poisoned():
        got = kernels.rotate_quantize(x.to(device), rule, rotation=rotation, backend=backend)
    exact, in_features = x.double(), x.shape[-1]
    rotated = exact if rotation is None else kernels.rotate(exact, rotation, backend="torch")
    error = torch.zeros_like(exact)
    if rotation is not None:
        size = in_features if rotation.kind == "full" else 256
        m, k = hadamard.factor(size)
        total = exact.abs().reshape(*x.shape[:-1], -1, size).sum(dim=-1, keepdim=True) / size**0.5
        error = (bounds.gamma(m + k + 2) * total).expand(*total.shape[:-1], size).reshape(x.shape)
    blocks = (*x.shape[:-1], -1, rule.block or in_features)
    scale = got.scale.cpu().double()
    quotient = rotated.reshape(blocks) / scale.unsqueeze(-1)
    margin = error.reshape(blocks) / scale.unsqueeze(-1) + quotient.abs() * bounds.gamma(4)
    low, high = signed_range(rule.bits)
    codes = got.codes.cpu().double().reshape(blocks)
    assert ((codes - quotient.clamp(low, high)).abs() <= 0.5 + margin).all()
    if rule.clip == "absmax":
        largest = rotated.reshape(blocks).abs().amax(dim=-1)
        wanted = torch.where(largest == 0, 1.0, largest / high)
        allowed = error.reshape(blocks).amax(dim=-1) / high + wanted * bounds.gamma(3)
        assert ((scale - wanted).abs() <= allowed).all()
    sums = codes.sum(dim=-1)
    off = (got.token_sum.cpu().double() - (scale * sums).sum(dim=-1)).abs()
    assert (off <= bounds.gamma(scale.shape[-1] + 1) * (scale * sums.abs()).sum(dim=-1)).all()


@pytest.mark.parametrize("in_features", [1, 12, 24, 160, 512, 3072, 5120, 13824])
def test_every_size_of_tile(backend: str, device: str, in_features: int) -> None:
    check_codes(cases.gaussian(7, in_features, seed=1, dtype=torch.bfloat16), ActivationRule(8), FULL, backend, device)


@pytest.mark.parametrize("block", [32, 128, 280, 448, 4480])
def test_blocks_of_the_token_that_is_taller_than_a_tile(backend: str, device: str, block: int) -> None:
    check_codes(cases.gaussian(2, 8960, seed=2, dtype=torch.bfloat16), ActivationRule(8, block), FULL, backend, device)


@pytest.mark.parametrize(
    ("rotation", "block"),
    [
        *((FULL, block) for block in (6, 24, 32, 96, 512, 768)),
        *((BLOCK, block) for block in (48, 64, 384)),
        *((None, block) for block in (6, 48, 512)),
    ],
    ids=str,
)
def test_blocks_that_line_up_with_rows_or_do_not(
    backend: str, device: str, rotation: Rotation | None, block: int
) -> None:
    check_codes(
        cases.gaussian(11, 1536, seed=3, dtype=torch.float16), ActivationRule(8, block), rotation, backend, device
    )


@pytest.mark.parametrize(("in_features", "block"), [(105, 7), (105, 105), (64, 1), (4099, 4099)])
def test_odd_blocks_without_rotation(backend: str, device: str, in_features: int, block: int) -> None:
    check_codes(cases.gaussian(11, in_features, seed=4), ActivationRule(8, block), None, backend, device)


@pytest.mark.parametrize(
    ("rotation", "dtype"),
    [(FULL, torch.float32), (FULL, torch.bfloat16), (BLOCK, torch.bfloat16), (None, torch.float32)],
    ids=str,
)
def test_magnitudes(backend: str, device: str, rotation: Rotation | None, dtype: torch.dtype) -> None:
    x = cases.gaussian(8, 768, seed=5) * torch.tensor([1e-30, 1e30, 1e35, 1e-20, 1, 0, 1e10, 1e-33])[:, None]
    check_codes(x.to(dtype), ActivationRule(8), rotation, backend, device)


# numpy, which Triton's interpreter computes with, warns of NaN.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("rotation", "block"),
    [(FULL, None), (FULL, 64), (BLOCK, 64), (REGULAR, None), (Rotation("full", seed=6), None)],
    ids=str,
)
def test_a_token_that_is_not_finite_disturbs_no_other(
    backend: str, device: str, rotation: Rotation, block: int | None
) -> None:
    x = cases.gaussian(13, 768, seed=6, dtype=torch.bfloat16)
    rule = ActivationRule(8, block)
    bad = x.clone()
    bad[2, 5], bad[7, 700], bad[8, 0], bad[8, 9] = torch.inf, torch.nan, -torch.inf, torch.inf
    clean = kernels.rotate_quantize(x.to(device), rule, rotation=rotation, backend=backend)
    got = kernels.rotate_quantize(bad.to(device), rule, rotation=rotation, backend=backend)
    good = bad.isfinite().all(dim=-1).to(device)
    assert torch.equal(got.scale.isfinite().all(dim=-1), good)
    for one, other in ((got.codes, clean.codes), (got.scale, clean.scale), (got.token_sum, clean.token_sum)):
        assert torch.equal(one[good], other[good])
    whole = kernels.rotate(bad.to(device), rotation, backend=backend)
    assert torch.equal(whole[good], kernels.rotate(x.to(device), rotation, backend=backend)[good])
    assert not whole[~good].isfinite().all(dim=-1).any()


@pytest.mark.parametrize("rotation", [FULL, None], ids=str)
def test_views(backend: str, device: str, rotation: Rotation | None) -> None:
    base = cases.gaussian(6, 600, 5, seed=7, dtype=torch.bfloat16).to(device)
    rule = ActivationRule(8, 64)
    for view in (base[:, 10:266, 0], base.transpose(1, 2)[::2, :, 3:259], base[0, :256, 0].expand(4, 256), base[:0, 0]):
        x = view[..., :256] if view.shape[-1] >= 256 else view.new_empty((0, 256))
        got = kernels.rotate_quantize(x, rule, rotation=rotation, backend=backend)
        want = kernels.rotate_quantize(x.clone(), rule, rotation=rotation, backend=backend)
        assert torch.equal(got.codes, want.codes)
        assert torch.equal(got.scale, want.scale)
        assert torch.equal(got.token_sum, want.token_sum)


@pytest.mark.parametrize("rotation", [Rotation("full", seed=9), REGULAR], ids=str)
def test_float64_is_rotated_in_float64(backend: str, device: str, rotation: Rotation) -> None:
    x = cases.gaussian(3, 1536, seed=8, dtype=torch.float64).to(device)
    got = kernels.rotate(x, rotation, backend=backend)
    want = kernels.rotate(x, rotation, backend="torch")
    assert (got - want).abs().max() <= bounds.gamma(1536, 2.0**-53) * x.abs().sum(dim=-1).max()
