"""Each mutant fails at least one check of conformance; the backend that it breaks passes them all."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conformance import checks
from conformance.cases import LinearCase

from dvdq_kernels.backend import Backend
from dvdq_kernels.registry import registered
from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule
from mutants.mutants import MUTANTS, Mutant, mutant

SIGNS = Rotation("full", seed=3)
CASES = (
    LinearCase(WeightRule(4, "minmax"), ActivationRule(4, 64, "gaussian"), None, 256, 3, torch.float32),
    LinearCase(WeightRule(4, "minmax", 64), ActivationRule(8), SIGNS, 256, 3, torch.bfloat16),
)
CHECKS = (
    checks.check_weight_ties,
    checks.check_activation_ties,
    checks.check_signed_scales,
    checks.check_integer_sums,
    checks.check_shared_activation,
    checks.check_packed_activation,
    checks.check_views,
    checks.check_inputs_unchanged,
    partial(checks.check_rotation, rotation=SIGNS, in_features=768),
    partial(checks.check_rotation, rotation=Rotation("regular"), in_features=768),
    partial(checks.check_identity_probe, rule=WeightRule(4, "minmax", 64)),
    partial(checks.check_weight, rule=WeightRule(4, "minmax", 64), in_features=256, dtype=torch.float32),
    *(partial(checks.check_linear, case=case) for case in CASES),
    partial(checks.check_activation, rule=ActivationRule(4, 128, "gaussian"), rotation=SIGNS, dtype=torch.float32),
    partial(checks.check_weight, rule=WeightRule(4, "bgr"), in_features=256, dtype=torch.float32),
    partial(checks.check_weight, rule=WeightRule(4, "bgr", num_bounds=1), in_features=256, dtype=torch.float32),
    partial(checks.check_weight, rule=WeightRule(4, "bgr", 128, tolerance=0.0), in_features=256, dtype=torch.float32),
    *(
        partial(
            checks.check_weight, rule=WeightRule(4, grid, 128, symmetric=True), in_features=256, dtype=torch.float32
        )
        for grid in ("clip-search", "bgr-symmetric")
    ),
)


def first_failure(operators: SimpleNamespace) -> str | None:
    """The message of the first check that fails."""
    with registered(Backend("mutant", lambda: operators, lambda: None, takes_packed=True)):
        for check in CHECKS:
            try:
                check("mutant", "cpu")
            except AssertionError as error:
                return str(error) or repr(check)
    return None


def test_the_right_backend_passes_under_another_name() -> None:
    assert first_failure(mutant()) is None


@pytest.mark.parametrize("build", MUTANTS.values(), ids=MUTANTS)
def test_mutant_fails(build: Mutant) -> None:
    assert first_failure(build()) is not None
