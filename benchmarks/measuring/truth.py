"""What a call of ours has to give at the very shape that is timed: float64 on some tokens, within derived bounds.

Conformance compares every format with the oracle at small sizes; this shows that the large ones, with the tiles and
routes that they get, compute the same. ``γ_k`` is :func:`dvdq_reference.oracle.bounds.gamma`.
"""

from __future__ import annotations

import math

import torch

from dvdq_kernels import QuantizedActivation, QuantizedWeight
from dvdq_reference.oracle import hadamard
from dvdq_reference.oracle.bounds import gamma
from dvdq_reference.spec.bits import code_offset

TOKENS = 8


def sample(tokens: int, device: torch.device) -> torch.Tensor:
    """Some tokens, the first and the last among them."""
    return torch.linspace(0, tokens - 1, min(tokens, TOKENS), device=device).round().long()


def check_activation(found: QuantizedActivation, x: torch.Tensor) -> None:
    """``|s - max|x̃|/l| ≤ e/l + γ_3 s`` and ``|s v - x̃| ≤ s/2 + e + γ_4(|x̃| + s)``, ``l = 2^(b-1) - 1``, ``x̃ = X H``.

    ``e = γ_(m+k+2) Σ|x|/√n`` is what a fast float32 transform of order ``n = m · 2^k`` may be off by.
    """
    some = sample(x.shape[0], x.device)
    values = x[some].double()
    size = values.shape[1]
    rotated = _rotated(values)
    error = (gamma(sum(hadamard.factor(size)) + 2) * values.abs().sum(dim=1) / math.sqrt(size))[:, None]
    scale, codes = found.scale[some].double(), found.values[some].double()
    levels = 2 ** (found.rule.bits - 1) - 1
    largest = rotated.abs().view(*scale.shape, -1).amax(dim=2)
    _within("a scale", scale, largest / levels, error / levels + gamma(3) * scale)
    step = scale.repeat_interleave(size // scale.shape[1], dim=1)
    _within("a code", step * codes, rotated, step / 2 + error + gamma(4) * (rotated.abs() + step))
    sums = scale * codes.view(*scale.shape, -1).sum(dim=2)
    allowed = gamma(scale.shape[1] + 1) * sums.abs().sum(dim=1)
    _within("a token's sum", found.token_sum[some].double(), sums.sum(dim=1), allowed)


def check_product(out: torch.Tensor, activation: QuantizedActivation, weight: QuantizedWeight) -> None:
    """The linear of these codes: within γ of the magnitudes that are added up, and the rounding to the output's dtype.

    Each integer sum is converted, scaled, added to those of the other blocks, and takes the offset, Δ and no bias.
    """
    some = sample(out.shape[0], out.device)
    v, s = activation.values[some].double(), activation.scale[some].double()
    u = _codes(weight).double() - code_offset(weight.rule.bits)
    delta, z = _grid(weight)
    parts = (-1, s.shape[1], weight.in_features // s.shape[1])
    sums = torch.einsum("tbk,nbk->tbn", v.view(parts), u.view(parts))
    offsets = v.view(parts).sum(dim=2)[:, :, None] * (z - code_offset(weight.rule.bits))
    truth = (s[:, :, None] * (sums - offsets)).sum(dim=1) * delta
    size = (s[:, :, None] * (sums.abs() + offsets.abs())).sum(dim=1) * delta
    allowed = gamma(s.shape[1] + 9) * size
    _within("an output", out[some].double(), truth, allowed + torch.finfo(out.dtype).eps * (truth.abs() + allowed))


def check_weight_only(out: torch.Tensor, x: torch.Tensor, weight: QuantizedWeight) -> None:
    """``X Ŵᵀ``, or ``X H Ŵᵀ``: within twice the error of plain torch in X's dtype, and what float32 sums may lose."""
    some = sample(out.shape[0], out.device)
    delta, z = _grid(weight)
    decoded = (_codes(weight).double() - z[:, None]) * delta[:, None]
    values = x[some].double() if weight.rotation is None else _rotated(x[some].double())
    truth = values @ decoded.t()
    plain = torch.nn.functional.linear(values.to(x.dtype), decoded.to(x.dtype)).double()
    allowed = 2 * (plain - truth).abs().amax() + gamma(x.shape[1] + 4) * (values.abs() @ decoded.abs().t())
    _within("an output", out[some].double(), truth, allowed + torch.finfo(out.dtype).eps * (truth.abs() + allowed))


def _rotated(x: torch.Tensor) -> torch.Tensor:
    """``X H``, H the Hadamard matrix of all channels, without signs."""
    m, k = hadamard.factor(x.shape[1])
    paley, sylvester = (torch.from_numpy(h).to(x) for h in (hadamard.paley(m), hadamard.sylvester(k)))
    # (A ⊗ B) applied to a row is Aᵀ · (the row as a matrix) · B.
    return (paley.t() @ x.view(-1, m, 2**k) @ sylvester).reshape(x.shape) / math.sqrt(x.shape[1])


def _codes(weight: QuantizedWeight) -> torch.Tensor:
    """Codes ``[out, in]`` of a packed 4-bit weight, the even channel in the low nibble."""
    return torch.stack((weight.qweight & 15, weight.qweight >> 4), dim=2).flatten(1)


def _grid(weight: QuantizedWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """Δ and z of each row, float64."""
    assert weight.zero is not None
    return weight.scale.double().squeeze(1), weight.zero.double().squeeze(1)


def _within(what: str, found: torch.Tensor, truth: torch.Tensor, allowed: torch.Tensor) -> None:
    # NaN passes no comparison.
    bad = ~((found - truth).abs() <= allowed)
    if bad.any():
        worst = (found - truth).abs()[bad].max()
        raise RuntimeError(
            f"not recorded: {what} is off by {float(worst):.3g}, {int(bad.sum())} of {bad.numel()} are wrong"
        )
