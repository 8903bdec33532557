"""Muon: momentum whose matrix updates are orthogonalised (K. Jordan, 2024), AdamW for everything else.

torch's own ``torch.optim.Muon`` takes only two-dimensional parameters and iterates in bfloat16, which a CPU without
such units runs a hundred times slower than float32; this one takes convolutions too, in either precision.
"""

from __future__ import annotations

import torch
from torch import nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
MATCH_ADAM = 0.2
"""Root mean square of an AdamW update: scaling Muon's to it lets both share one learning rate (Liu et al., 2025)."""


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """U V^T of ``matrix = U S V^T`` ``[..., rows, columns]``, approximately: a quintic Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions, a convolution's taken as ``[out, in * taps]``."""

    def __init__(self, params, lr: float, weight_decay: float, precision: torch.dtype) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "precision": precision})

    @torch.no_grad()
    def step(self) -> None:
        """One update; matrices of one shape are orthogonalised in one batch."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                updates = []
                for parameter in parameters:
                    momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    momentum.lerp_(parameter.grad, 1.0 - MOMENTUM)
                    updates.append(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
                stacked = orthogonalise(torch.stack(updates).to(group["precision"]))
                scale = MATCH_ADAM * max(stacked.shape[-2:]) ** 0.5
                for parameter, update in zip(parameters, stacked, strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)


class MuonWithAdamW:
    """Muon for a model's hidden matrices and AdamW for its vectors, embeddings and ``adamw`` modules, as one."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        weight_decay: float,
        adamw: tuple[str, ...] = (),
        precision: torch.dtype = torch.float32,
    ) -> None:
        by_muon, by_adamw = [], []
        for name, parameter in model.named_parameters():
            is_hidden = min(parameter.shape, default=0) > 1 and not any(part in name for part in adamw)
            (by_muon if parameter.ndim >= 2 and is_hidden else by_adamw).append(parameter)
        self.optimizers = [
            Muon(by_muon, lr=lr, weight_decay=weight_decay, precision=precision),
            torch.optim.AdamW(by_adamw, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, lr: float) -> None:
        """One update of every parameter at learning rate ``lr``; clears the gradients."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list[dict]:
        """The state of both."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, state: list[dict]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for optimizer, part in zip(self.optimizers, state, strict=True):
            optimizer.load_state_dict(part)
