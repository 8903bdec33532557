"""What is asked of a backend, as plain functions of its name: the tests run them, and mutants must fail them.

Outputs are compared with the float64 oracle. Codes, packing and integer sums are exact; what float32 may change is
bounded by :mod:`dvdq_reference.oracle.bounds`, which derives it from sizes. Memory that a kernel allocates starts as
NaN (or the largest integer), so that what it leaves unwritten shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

import dvdq_kernels as kernels
from conformance import cases
from conformance.cases import LinearCase
from dvdq_reference.oracle import affine, arq, bgr, bgr_symmetric, bounds, clip_search, hadamard, linear, packing
from dvdq_reference.oracle.inputs import Floats, Ints
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule


@contextmanager
def poisoned() -> Iterator[None]:
    """Fresh memory is filled with NaN: torch does so where it is asked to be deterministic."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def stored(qweight: kernels.QuantizedWeight) -> tuple[Ints, affine.Grid]:
    """The codes and the grid of a quantized weight, as the oracle takes them, unpacked by the oracle."""
    bits = qweight.rule.bits
    codes = packing.unpack(qweight.qweight.cpu().numpy(), bits, qweight.in_features)
    scale = qweight.scale.cpu().double().numpy()
    zero = np.full(scale.shape, code_offset(bits)) if qweight.zero is None else qweight.zero.cpu().numpy()
    return codes, affine.Grid(scale, zero.astype(np.int64), bits, qweight.rule.least_code)


def check_weight(backend: str, device: str, rule: WeightRule, in_features: int, dtype: torch.dtype) -> None:
    """Without rotation: the oracle's grid but for the rounding of Δ, and exactly the codes of the stored grid."""
    weight = cases.weights(in_features, dtype)
    with poisoned():
        qweight = kernels.quantize_weight(weight.to(device), rule, backend=backend)
    exact = weight.double().numpy()
    codes, grid = stored(qweight)
    np.testing.assert_array_equal(codes, affine.quantize(exact, grid))
    np.testing.assert_array_equal(qweight.qweight.cpu().numpy(), packing.pack(codes, rule.bits))
    if rule.grid == "minmax":
        truth = affine.minmax_grid(exact, rule.bits, group_size=rule.group_size, symmetric=rule.symmetric)
        np.testing.assert_array_equal(grid.scale, truth.scale.astype(np.float32))
        np.testing.assert_array_equal(grid.zero, truth.zero)
        return
    if rule.grid == "clip-search":
        _check_clip_search(exact, rule, grid)
        return
    search = {"num_bounds": rule.num_bounds, "tolerance": rule.tolerance, "group_size": rule.group_size}
    symmetric = rule.grid == "bgr-symmetric"
    found = (bgr_symmetric.refine_scale if symmetric else bgr.refine_grid)(exact, rule.bits, **search)
    truth = found if isinstance(found, affine.Grid) else found.grid
    best = affine.dequantize(affine.quantize(exact, truth), truth)
    shape = (*truth.scale.shape, -1)
    error, least = (np.linalg.norm((exact - w).reshape(shape), axis=2) for w in (affine.dequantize(codes, grid), best))
    # Rounding Δ moves Ŵ by at most u |Ŵ|, in each element and so in norm; float64 sums lose far less than that again.
    allowed = 2 * bounds.gamma(1) * np.linalg.norm(best.reshape(shape), axis=2)
    assert (np.abs(error - least) <= allowed).all(), "BGR's error is not the oracle's"


def _check_clip_search(exact: Floats, rule: WeightRule, grid: affine.Grid) -> None:
    """The oracle's step for each row; another one only where its error is as small, but for the roundings of a sum."""
    start = affine.minmax_grid(exact, rule.bits, group_size=rule.group_size, symmetric=True)
    truth = clip_search.search_clip(exact, rule.bits, group_size=rule.group_size)
    found = clip_search.shrunk(start, np.rint(100 * (1 - grid.scale / start.scale)))
    np.testing.assert_array_equal(grid.scale, found.scale.astype(np.float32))
    np.testing.assert_array_equal(grid.zero, truth.zero)
    error, least = clip_search.clip_error(exact, found), clip_search.clip_error(exact, truth)
    # Two sums of as many powers, each power off by an ulp or two; a sum of zeros is zero in any order.
    roundings = 2 * bounds.gamma(exact.shape[1] // grid.scale.shape[1] + 8, 2.0**-53)
    tied = (found.scale == truth.scale) | ((error <= least * (1 + roundings)) & (least > 0))
    assert tied.all(), f"{(~tied).sum()} grids are not the oracle's"


def check_rotated_weight(backend: str, device: str, rule: WeightRule, rotation: Rotation, in_features: int) -> None:
    """With rotation: codes of the exact ``W R`` on the stored grid, but where float32 cannot tell two of them apart."""
    weight = cases.weights(in_features)
    with poisoned():
        qweight = kernels.quantize_weight(weight.to(device), rule, rotation=rotation, backend=backend)
    exact = weight.double().numpy()
    codes, grid = stored(qweight)
    rotated = exact @ hadamard.rotation_matrix(in_features, rotation)
    truth = affine.quantize(rotated, grid)
    scale, _ = grid.per_channel("check", codes.shape)
    margin = bounds.rotation_float32(exact, rotation) / scale
    quotient = rotated / scale
    near_tie = np.abs(quotient - np.floor(quotient) - 0.5) <= margin
    differs = codes != truth
    assert not (differs & ~near_tie).any(), f"{(differs & ~near_tie).sum()} codes differ off the rounding ties"
    assert (np.abs(codes - truth) <= 1 + 2 * margin).all()


def check_what_codes_left(backend: str, device: str) -> None:
    """A second set of codes holds what the first left of the exact ``W R``, to within half a step of its own grid."""
    weight, rotation = cases.weights(256), Rotation("full", seed=3)
    coarse, fine = WeightRule(4, "minmax", 64), WeightRule(4, "minmax")
    first = kernels.quantize_weight(weight.to(device), coarse, rotation=rotation, backend=backend)
    with poisoned():
        second = kernels.quantize_weight(weight.to(device), fine, rotation=rotation, left_by=first, backend=backend)
    exact = weight.double().numpy()
    rotated, decoded = exact @ hadamard.rotation_matrix(256, rotation), affine.dequantize(*stored(first))
    left, (codes, grid) = rotated - decoded, stored(second)
    # The rotation in float32, and the decoded weight and the difference, each rounded once.
    blur = bounds.rotation_float32(exact, rotation) + bounds.gamma(2) * (np.abs(rotated) + np.abs(decoded))
    # The ends of the range move by as much, and Δ is stored in float32.
    step = affine.minmax_grid(left, 4).scale
    assert (np.abs(grid.scale - step) <= (2 * blur.max(axis=1, keepdims=True) / 15) + bounds.gamma(2) * step).all()
    assert (np.abs(left - affine.dequantize(codes, grid)) <= grid.scale / 2 + blur).all()


def check_weight_ties(backend: str, device: str) -> None:
    """Halves round to even, where Δ = 1 and z = 3."""
    halves = np.arange(-2.5, 12, 1.0)
    weight = np.concatenate([[-3.0, 12.0], halves, [0.0]]).astype(np.float32)[None]
    qweight = kernels.quantize_weight(torch.from_numpy(weight).to(device), WeightRule(4, "minmax"), backend=backend)
    codes, grid = stored(qweight)
    assert (grid.scale, grid.zero) == (1, 3)
    np.testing.assert_array_equal(codes[0, 2:-1], np.rint(halves) + 3)


def check_activation_ties(backend: str, device: str) -> None:
    """Halves round to even, where s = 1."""
    x = torch.tensor([[7.0, *np.arange(-6.5, 7), -7.0]], device=device)
    got = kernels.rotate_quantize(x, ActivationRule(4), backend=backend)
    np.testing.assert_array_equal(got.values.cpu().numpy()[0], np.rint(x.cpu().numpy()[0]))


def check_signed_scales(backend: str, device: str) -> None:
    """By hand: the largest value, positive, negative, or twice with both signs, takes -8; zeros have the scale 1."""
    rule = ActivationRule(4, 16, "signed")
    x = torch.zeros(1, 64)
    x[0, :4] = torch.tensor([8.0, -3.1, 2.2, 0.4])
    x[0, 16:20] = torch.tensor([3.1, -8.0, 2.2, 0.4])
    x[0, 32:36] = torch.tensor([8.0, -8.0, 2.2, 0.4])
    got = kernels.rotate_quantize(x.to(device), rule, backend=backend)
    truth = arq.quantize_block(x.double().numpy(), rule)
    scale = got.scale.cpu().double().numpy()[0]
    np.testing.assert_array_equal(np.sign(scale), [-1, 1, 1, 1])
    assert (np.abs(scale - truth.scale[0]) <= bounds.gamma(3) * np.abs(scale)).all()
    codes = got.values.cpu().numpy()[0]
    np.testing.assert_array_equal(codes, truth.codes[0])
    assert (codes[0], codes[17], codes[33], scale[3]) == (-8, -8, -8, 1)


def check_dequantize(backend: str, device: str, rule: WeightRule, in_features: int) -> None:
    """``Δ(q - z)`` is one float32 product of exact numbers: equal to the last bit."""
    qweight = kernels.quantize_weight(cases.weights(in_features).to(device), rule, backend=backend)
    with poisoned():
        decoded = kernels.dequantize(qweight, backend=backend)
    codes, grid = stored(qweight)
    np.testing.assert_array_equal(decoded.cpu().numpy(), affine.dequantize(codes, grid).astype(np.float32))


def check_rotation(
    backend: str, device: str, rotation: Rotation, in_features: int, dtype: torch.dtype = torch.float32
) -> None:
    """The transform of three channels and one random row, without the oracle's whole matrix where that is large."""
    rows = np.zeros((4, in_features))
    rows[[0, 1, 2], [0, in_features // 2 + 1, in_features - 1]] = 1
    rows[3] = np.random.default_rng(5).standard_normal(in_features)
    given = torch.from_numpy(rows).to(dtype)
    with poisoned():
        got = kernels.rotate(given.to(device), rotation, backend=backend).cpu().double().numpy()
    x = given.double().numpy()
    truth, size = _exact_rotation(x, rotation)
    m, k = hadamard.factor(size)
    # m + k additions and the factor 1/√size, each of terms that sum to at most Σ|x|/√size (bounds.rotation_float32).
    total = np.abs(x).reshape(4, -1, size).sum(axis=2, keepdims=True) / np.sqrt(size)
    allowed = bounds.gamma(m + k + 2) * np.broadcast_to(total, (4, in_features // size, size)).reshape(x.shape)
    if dtype != torch.float32:  # and one rounding to the nearest
        allowed += torch.finfo(dtype).eps / 2 * (np.abs(truth) + allowed)
    assert (np.abs(got - truth) <= allowed).all()


def _exact_rotation(x: Floats, rotation: Rotation) -> tuple[Floats, int]:
    in_features = x.shape[1]
    size = in_features if rotation.kind == "full" else 256
    m, k = hadamard.factor(size)
    signed = (x * hadamard.rotation_signs(in_features, rotation)).reshape(-1, m, 2**k)
    # (A ⊗ B) applied to a row is Aᵀ · (the row as a matrix) · B.
    return (hadamard.paley(m).T @ signed @ _walsh(k) / np.sqrt(size)).reshape(x.shape), size


def _walsh(k: int) -> Floats:
    return hadamard.sylvester(k).astype(np.float64)


def check_activation(
    backend: str, device: str, rule: ActivationRule, rotation: Rotation | None, dtype: torch.dtype
) -> None:
    """Codes that differ lie on a tie that float32 cannot resolve; scales and token sums are within their roundings."""
    for tokens in cases.TOKENS:
        x = cases.activations(tokens, 768, dtype)
        with poisoned():
            got = kernels.rotate_quantize(x.to(device), rule, rotation=rotation, backend=backend)
        exact = x.double().numpy()
        rotated = exact if rotation is None else exact @ hadamard.rotation_matrix(768, rotation)
        truth = arq.quantize_block(rotated, rule)
        allowed = bounds.codes_float32(exact, rule, rotation)
        codes, scale = got.values.cpu().numpy().astype(np.int64), got.scale.cpu().double().numpy()
        differs = np.abs(codes - truth.codes)
        assert (differs <= allowed.may_differ).all(), f"{(differs > allowed.may_differ).sum()} codes differ"
        assert (np.abs(scale - truth.scale) <= allowed.scale * np.abs(truth.scale)).all()
        sums = codes.reshape(*scale.shape, -1).sum(axis=2)
        size = (np.abs(scale) * np.abs(sums)).sum(axis=1)
        error = np.abs(got.token_sum.cpu().double().numpy() - (scale * sums).sum(axis=1))
        assert (error <= bounds.gamma(scale.shape[1] + 1) * size).all()


def check_linear(backend: str, device: str, case: LinearCase) -> None:
    """The whole linear against the oracle's, within what float32 may change, and the rounding to X's dtype."""
    x = cases.activations(case.tokens, case.in_features, case.dtype)
    weight = cases.weights(case.in_features)
    bias = cases.gaussian(cases.OUT_FEATURES, seed=9)
    qweight = kernels.quantize_weight(weight.to(device), case.weight, rotation=case.rotation, backend=backend)
    with poisoned():
        got = kernels.quantized_linear(
            x.to(device), qweight, case.activation, rotation=case.rotation, bias=bias.to(device), backend=backend
        )
    assert got.dtype == case.dtype
    codes, grid = stored(qweight)
    exact, shift = x.double().numpy(), bias.double().numpy()
    truth = linear.quantized_linear(exact, codes, grid, case.activation, rotation=case.rotation, bias=shift)
    allowed = bounds.linear_float32(exact, codes, grid, case.activation, rotation=case.rotation, bias=shift)
    allowed += torch.finfo(case.dtype).eps * (np.abs(truth) + allowed)
    if case.activation is None:
        # The product itself is in X's dtype: within twice the error of the same product in plain torch.
        plain = _plain_product(exact, codes, grid, case, shift)
        allowed += 2 * np.abs(plain - truth).max(axis=1, keepdims=True)
    error = np.abs(got.cpu().double().numpy() - truth)
    assert (error <= allowed).all(), f"{case}: error {error.max()}, allowed {allowed.flat[error.argmax()]}"


def _plain_product(exact: Floats, codes: Ints, grid: affine.Grid, case: LinearCase, bias: Floats) -> Floats:
    if case.rotation is not None:
        exact = exact @ hadamard.rotation_matrix(case.in_features, case.rotation)
    operands = (exact, affine.dequantize(codes, grid), bias)
    x, weight, shift = (torch.from_numpy(np.ascontiguousarray(a)).to(case.dtype) for a in operands)
    return torch.nn.functional.linear(x, weight, shift).double().numpy()


def check_integer_sums(backend: str, device: str) -> None:
    """With every scale 1 and no zero-point the output is an integer, and exact up to 2^24, where float32 ends."""
    in_features, rule = 16384, WeightRule(4, "minmax", symmetric=True)
    rng = np.random.default_rng(6)
    u = rng.integers(-8, 8, (8, in_features))
    u[0], u[1, 0] = -8, 7
    weight = torch.from_numpy(u.astype(np.float32))
    qweight = kernels.quantize_weight(weight.to(device), rule, backend=backend)
    units = torch.full_like(qweight.scale, 1.0)
    packed = torch.from_numpy(packing.pack(u + 8, 4)).to(device)
    qweight = kernels.QuantizedWeight(packed, units, None, rule, in_features)
    v = rng.integers(-127, 128, (3, in_features))
    v[0], v[:, 0] = 127, 127
    with poisoned():
        x = torch.from_numpy(v.astype(np.float32)).to(device)
        got = kernels.quantized_linear(x, qweight, ActivationRule(8), backend=backend)
    np.testing.assert_array_equal(got.cpu().numpy(), v @ u.T)


def check_identity_probe(backend: str, device: str, rule: WeightRule) -> None:
    """With the identity as activations the output is the decoded weight."""
    qweight = kernels.quantize_weight(cases.weights(256).to(device), rule, backend=backend)
    codes, grid = stored(qweight)
    decoded = affine.dequantize(codes, grid)
    with poisoned():
        full = kernels.quantized_linear(torch.eye(256, device=device), qweight, None, backend=backend)
    np.testing.assert_array_equal(full.cpu().numpy().T, decoded.astype(np.float32))
    for activation in (ActivationRule(8), ActivationRule(4, 64)):
        with poisoned():
            got = kernels.quantized_linear(torch.eye(256, device=device), qweight, activation, backend=backend)
        scale, zero = grid.per_channel("check", codes.shape)
        # u and z - 2^(b-1) are multiplied apart: each passes s, its sum, Δ and the difference, six roundings in all.
        size = scale * (np.abs(codes - code_offset(rule.bits)) + np.abs(zero - code_offset(rule.bits)))
        assert (np.abs(got.cpu().double().numpy().T - decoded) <= bounds.gamma(6) * size).all()


def check_shared_activation(backend: str, device: str) -> None:
    """What :func:`rotate_quantize` made gives the very output that the activations themselves give."""
    rotation, rule = Rotation("full", seed=2), ActivationRule(4, 128)
    x = cases.activations(17, 256, torch.bfloat16).to(device)
    qweight = kernels.quantize_weight(cases.weights(256).to(device), WeightRule(), rotation=rotation, backend=backend)
    shared = kernels.rotate_quantize(x, rule, rotation=rotation, backend=backend)
    options = {"rotation": rotation, "backend": backend}
    direct = kernels.quantized_linear(x, qweight, rule, **options)
    assert torch.equal(direct, kernels.quantized_linear(shared, qweight, rule, **options))


def check_packed_activation(backend: str, device: str) -> None:
    """Packed codes are the others, two a byte as the oracle packs their nibbles, and have the very same products."""
    rotation = Rotation("full", seed=2)
    x = cases.activations(17, 768, torch.bfloat16).to(device)
    weight = cases.weights(768).to(device)
    for rule, weight_rule in zip(cases.PACKED_RULES, cases.PACKED_WEIGHT_RULES, strict=True):
        with poisoned():
            plain, packed = (
                kernels.rotate_quantize(x, rule, rotation=rotation, backend=backend, packed=choice)
                for choice in (False, True)
            )
        nibbles = plain.codes.cpu().numpy().astype(np.int64) & 15
        np.testing.assert_array_equal(packed.codes.cpu().numpy(), packing.pack(nibbles, 4))
        assert torch.equal(packed.values, plain.codes)
        assert torch.equal(packed.scale, plain.scale)
        assert torch.equal(packed.token_sum, plain.token_sum)
        qweight = kernels.quantize_weight(weight, weight_rule, rotation=rotation, backend=backend)
        with poisoned():
            got, expected = (
                kernels.quantized_linear(given, qweight, rule, rotation=rotation, backend=backend)
                for given in (packed, plain)
            )
        assert torch.equal(got, expected), f"{weight_rule}, {rule}: the products of packed codes are others"


def check_views(backend: str, device: str) -> None:
    """Strides, leading dimensions and an empty batch change nothing."""
    qweight = kernels.quantize_weight(cases.weights(256).to(device), WeightRule(), backend=backend)
    base = cases.gaussian(6, 512, 5, seed=7).to(device)
    for rule in (None, ActivationRule(8), ActivationRule(4, 64)):
        view = base.transpose(1, 2)[::2, :, ::2]
        got = kernels.quantized_linear(view, qweight, rule, backend=backend)
        flat = kernels.quantized_linear(view.reshape(-1, 256), qweight, rule, backend=backend)
        assert torch.equal(got, flat.view(3, 5, -1))
        one = kernels.quantized_linear(view[0, 0], qweight, rule, backend=backend)
        assert one.shape == (cases.OUT_FEATURES,)
        empty = kernels.quantized_linear(view[:0], qweight, rule, backend=backend)
        assert empty.shape == (0, 5, cases.OUT_FEATURES)
    wide = cases.weights(512).to(device)[:, ::2]
    strided = kernels.quantize_weight(wide, WeightRule(), backend=backend)
    assert torch.equal(strided.qweight, kernels.quantize_weight(wide.clone(), WeightRule(), backend=backend).qweight)


def check_not_finite(backend: str, device: str) -> None:
    """A token with NaN or Inf has outputs that are not finite, and the others have theirs."""
    qweight = kernels.quantize_weight(cases.weights(256).to(device), WeightRule(4, "minmax"), backend=backend)
    x = cases.activations(17, 256, torch.float32).to(device)
    spoilt, tokens = x.clone(), torch.tensor([0, 3, 16], device=device)
    spoilt[tokens, 77] = torch.tensor([-torch.inf, torch.nan, torch.inf], device=device)
    others = torch.ones(17, dtype=torch.bool, device=device).index_fill(0, tokens, False)
    for rule in (ActivationRule(8), ActivationRule(4, 64)):
        good = kernels.quantized_linear(x, qweight, rule, backend=backend)
        # Triton's interpreter multiplies in NumPy, which warns.
        with np.errstate(all="ignore"):
            got = kernels.quantized_linear(spoilt, qweight, rule, backend=backend)
        assert not got[tokens].isfinite().any(), "outputs of a token that is not finite are"
        assert torch.equal(got[others], good[others]), "a token that is not finite changes another"


def check_inputs_unchanged(backend: str, device: str) -> None:
    """No operator writes to what it was given."""
    rotation, rule = Rotation("full", seed=1), ActivationRule(4, 128)
    x, weight = cases.activations(17, 256, torch.float32).to(device), cases.weights(256).to(device)
    bias = cases.gaussian(cases.OUT_FEATURES, seed=8).to(device)
    qweight = kernels.quantize_weight(weight, WeightRule(), rotation=rotation, backend=backend)
    plain = kernels.quantize_weight(weight, WeightRule(8, "minmax"), backend=backend)
    shared = kernels.rotate_quantize(x, rule, rotation=rotation, backend=backend)
    assert qweight.zero is not None
    given = (x, weight, bias, qweight.qweight, qweight.scale, qweight.zero, plain.qweight)
    given += (shared.codes, shared.scale, shared.token_sum)
    before = [t.clone() for t in given]
    linear_of = kernels.quantized_linear
    calls: tuple[Callable[[], object], ...] = (
        lambda: kernels.quantize_weight(weight, WeightRule(), backend=backend),
        lambda: kernels.quantize_weight(weight, WeightRule(8, "minmax"), rotation=rotation, backend=backend),
        lambda: kernels.dequantize(qweight, backend=backend),
        lambda: kernels.dequantize(plain, backend=backend),
        lambda: kernels.rotate(x, rotation, backend=backend),
        lambda: kernels.rotate_quantize(x, rule, backend=backend),
        lambda: kernels.rotate_quantize(x, rule, rotation=rotation, backend=backend),
        lambda: linear_of(shared, qweight, rule, rotation=rotation, bias=bias, backend=backend),
        lambda: linear_of(x, qweight, None, rotation=rotation, bias=bias, backend=backend),
        lambda: linear_of(x, plain, rule, bias=bias, backend=backend),
    )
    for call in calls:
        call()
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True)), "an input was changed"
