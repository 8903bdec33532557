"""The public functions: check the arguments, call the operator, which selects a backend."""

from __future__ import annotations

import torch

from dvdq_kernels.activation_codes import is_packable
from dvdq_kernels.call import Call, place_of
from dvdq_kernels.feedback import encode_with_feedback
from dvdq_kernels.ops import run
from dvdq_kernels.quantized import QuantizedActivation, QuantizedWeight
from dvdq_kernels.rotation import check_rotation
from dvdq_kernels.selection import packs_on, select
from dvdq_kernels.sharing import rotate_quantize_once
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.granularity import count_parts
from dvdq_reference.spec.layout import packed_width
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

_FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})


def quantize_weight(
    weight: torch.Tensor,
    rule: WeightRule,
    *,
    rotation: Rotation | None = None,
    left_by: QuantizedWeight | None = None,
    feedback: torch.Tensor | None = None,
    backend: str = "auto",
) -> QuantizedWeight:
    """The codes and grid of ``W R`` (Eq. 1; Algorithm 1 for ``grid="bgr"``), packed as a checkpoint stores them.

    ``q = clamp(round(W/Δ) + z, 0, 2^b - 1)``, half to even, with the Δ that is stored (float32). A rule with
    ``rounding="feedback"`` has the same grid, and other codes on it.

    Args:
        weight: ``[out, in]``, any float dtype; finite, not empty.
        rule: width, grid, group size, symmetry, and what bounds the search of BGR.
        rotation: R; None leaves the weight in its own basis.
        left_by: codes of the same weight: those of what they left, ``W R - Ŵ``, are made instead. A product with both
            is that with either, added.
        feedback: for a rule that rounds with it, what :func:`~dvdq_kernels.feedback.error_feedback` makes of the
            activations' moments in the basis of ``rotation``.
        backend: ``"auto"`` or a name of :func:`~dvdq_kernels.backends`. One that has no rotation gets W R from the one
            that ``"auto"`` would take.

    Raises:
        DvdqError: not a float matrix, empty, a row with NaN or Inf (named), a size that does not divide, a backend that
            has no kernels for the grid, ``left_by`` of another shape or rotation, or ``feedback`` that is missing, not
            asked for or of another shape.
    """
    operation = "quantize_weight"
    if weight.ndim != 2 or weight.dtype not in _FLOATS or weight.numel() == 0:
        raise DvdqError(operation, expected="a float matrix [out, in], not empty", got=_describe(weight))
    in_features = weight.shape[1]
    count_parts(operation, in_features, rule.group_size)
    packed_width(operation, in_features, rule.bits)
    _check_feedback(operation, rule, in_features, feedback)
    # Extremes carry NaN and Inf, at the cost of one pass and no copy.
    good = torch.stack(torch.aminmax(weight, dim=1)).to(torch.float32).isfinite().all(dim=0)
    if not bool(good.all()):
        row = int(good.logical_not().nonzero()[0])
        raise DvdqError(operation, where=f"row {row}", expected="finite values that float32 can hold", got="others")
    place = place_of(weight.device)
    chosen = select(Call(operation, place, rule.grid, bits=rule.bits, dtype=weight.dtype), backend).backend
    weight = weight.detach()
    if rotation is not None:
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        rotates = chosen.refuses(Call("rotate", place, dtype=weight.dtype)) is None
        weight = rotate(weight, rotation, backend=chosen.name if rotates else "auto")
    if left_by is not None:
        if (left_by.rotation, left_by.out_features, left_by.in_features) != (rotation, *weight.shape):
            expected = f"codes {list(weight.shape)} with the rotation {rotation}"
            got = f"{[left_by.out_features, left_by.in_features]} with {left_by.rotation}"
            raise DvdqError(operation, where="left_by", expected=expected, got=got)
        weight = weight - dequantize(left_by)
    grid = rule.bits, rule.grid, rule.group_size, rule.symmetric, rule.num_bounds, rule.tolerance
    qweight, scale, zero = torch.ops.dvdq.quantize_weight(weight, *grid, chosen.name)
    if feedback is not None:
        qweight = encode_with_feedback(weight, scale, zero, feedback, rule.bits, rule.least_code)
    return QuantizedWeight(qweight, scale, None if rule.symmetric else zero, rule, in_features, rotation)


def dequantize(qweight: QuantizedWeight, *, backend: str = "auto") -> torch.Tensor:
    """``Ŵ = Δ(q - z)`` (Eq. 2), float32 ``[out, in]``, in the rotated basis if the weight has a rotation."""
    result: torch.Tensor = torch.ops.dvdq.dequantize(
        qweight.qweight, qweight.scale, qweight.zero, qweight.rule.bits, qweight.in_features, backend
    )
    return result


def rotate(x: torch.Tensor, rotation: Rotation, *, backend: str = "auto") -> torch.Tensor:
    """``X R`` over the last dimension, in the dtype of ``x``: R is the orthonormal matrix that ``rotation`` names."""
    _check_activations("rotate", x)
    check_rotation("rotate", x.shape[-1], rotation)
    result: torch.Tensor = torch.ops.dvdq.rotate(x, rotation.kind, rotation.seed, backend)
    return result


def rotate_quantize(
    x: torch.Tensor,
    rule: ActivationRule,
    *,
    rotation: Rotation | None = None,
    backend: str = "auto",
    packed: bool | None = None,
    shared: bool = False,
) -> QuantizedActivation:
    """The codes of ``X R``, with one online scale per token and block (ARQ, Eq. 10).

    ``s = c · max|x̃| / (2^(b-1) - 1)``, ``v = clamp(round(x̃/s), -2^(b-1), 2^(b-1) - 1)``, half to even.

    Args:
        x: ``[..., in]``, any float dtype and strides, zero tokens included. A token with NaN or Inf is not looked
            for, which would cost a pass over the activations: its scale is then not finite, nor is its output.
        rule: width, block, clip.
        rotation: R.
        backend: ``"auto"`` or a name of :func:`~dvdq_kernels.backends`.
        packed: whether codes, of up to 4 bits and an even number of channels, lie two a byte. None is as the backend's
            product wants them on that device; with ``"auto"``, the product that is preferred there at that width.
        shared: for several linears on one tensor: what the latest such call in this thread made is given again if it
            was asked the same of this very ``x``, not written to since. It is kept as long as ``x`` lives and no other
            tensor is quantized so. Inference tensors, to which a write leaves no trace, are quantized each time.

    Raises:
        DvdqError: not floats, sizes that do not divide or cannot be rotated, codes that cannot be packed, or a backend
            that cannot run this.
    """
    operation = "rotate_quantize"
    _check_activations(operation, x)
    in_features = x.shape[-1]
    count_parts(operation, in_features, rule.block)
    if rotation is not None:
        check_rotation(operation, in_features, rotation)
    packable = is_packable(in_features, rule.bits)
    if packed and not packable:
        expected, got = "up to 4 bits and an even number of channels", f"{rule.bits} bits, {in_features} channels"
        raise DvdqError(operation, where="packed", expected=expected, got=got)
    if packed is None:
        packed = packable and packs_on(x.device, rule.bits, backend, x.dtype)
    kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
    request = rule.bits, rule.block, rule.clip, kind, seed, packed, backend
    codes, scale, token_sum = rotate_quantize_once(x, *request) if shared else run("rotate_quantize", x, *request)
    return QuantizedActivation(codes, scale, token_sum, rule, rotation, x.dtype)


def quantized_linear(
    x: torch.Tensor | QuantizedActivation,
    qweight: QuantizedWeight,
    rule: ActivationRule | None,
    *,
    rotation: Rotation | None = None,
    bias: torch.Tensor | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """``Y = (X R)(W R)ᵀ + bias`` on codes, accumulated in exact integer arithmetic; ``[..., out]`` in X's dtype.

    ``Y[t,n] = Δ_n (Σ_b s[t,b] Σ_{k∈b} v·u - (z_n - 2^(b-1)) r[t]) + bias[n]``, ``u = q - 2^(b-1)``, ``r`` the token
    sum; with groups, Δ and z stand inside the sum.

    Args:
        x: ``[..., in]``, or what :func:`rotate_quantize` made of it: several linears can share that. If its codes are
            packed, only backends that take packed codes can multiply them.
        qweight: the weight.
        rule: how ``x`` is quantized; None keeps full activations (W4A16): Ŵ is decoded, the product is in X's dtype.
        rotation: R; must be the weight's, and that of ``x`` if it is quantized.
        bias: ``[out]``.
        backend: ``"auto"`` or a name of :func:`~dvdq_kernels.backends`.
    """
    operation = "quantized_linear"
    # Identity first: to compare two dataclasses calls into Python, and a layer's are the same objects.
    if rotation is not qweight.rotation and rotation != qweight.rotation:
        raise DvdqError(operation, where="rotation", expected=f"the weight's, {qweight.rotation}", got=rotation)
    if bias is not None and bias.shape != (qweight.out_features,):
        raise DvdqError(operation, where="bias", expected=f"[{qweight.out_features}]", got=_describe(bias))
    if isinstance(x, torch.Tensor):
        values, in_features = x, x.shape[-1] if x.ndim else 0
    else:
        values, in_features = x.codes, x.in_features
    if in_features != qweight.in_features:
        raise DvdqError(operation, where="x", expected=f"[..., {qweight.in_features}]", got=_describe(values))
    grid = qweight.qweight, qweight.scale, qweight.zero
    if rule is None and isinstance(x, torch.Tensor):
        _check_activations(operation, x)
        kind, seed = (None, None) if rotation is None else (rotation.kind, rotation.seed)
        result: torch.Tensor = run("float_linear", x, *grid, bias, qweight.rule.bits, kind, seed, backend)
        return result
    if isinstance(x, torch.Tensor):
        assert rule is not None
        x = rotate_quantize(x, rule, rotation=rotation, backend=backend)
    elif (rule is not x.rule and rule != x.rule) or (rotation is not x.rotation and rotation != x.rotation):
        raise DvdqError(operation, where="x", expected=f"{rule}, {rotation}", got=f"{x.rule}, {x.rotation}")
    result = run(
        "integer_linear", x.codes, x.scale, x.token_sum, *grid, bias, x.rule.bits, qweight.rule.bits, x.dtype, backend
    )
    return result


def _check_feedback(operation: str, rule: WeightRule, in_features: int, feedback: torch.Tensor | None) -> None:
    if (rule.rounding == "feedback") != (feedback is not None):
        expected = "what error_feedback gives" if feedback is None else f"none, rounding to {rule.rounding}"
        raise DvdqError(operation, where="feedback", expected=expected, got="none" if feedback is None else "one")
    if feedback is not None and (feedback.shape != (in_features, in_features) or feedback.dtype != torch.float64):
        expected = f"float64 [{in_features}, {in_features}]"
        raise DvdqError(operation, where="feedback", expected=expected, got=_describe(feedback))


def _check_activations(operation: str, x: torch.Tensor) -> None:
    if x.ndim < 1 or x.dtype not in _FLOATS or x.shape[-1] == 0:
        raise DvdqError(operation, expected="floats [..., in]", got=_describe(x))


def _describe(x: torch.Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
