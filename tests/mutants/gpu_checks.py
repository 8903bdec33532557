"""What is asked of a broken copy of a GPU's kernels, by name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from conformance import checks
from conformance.cases import LinearCase

from dvdq_reference.spec.recipe import ActivationRule, Rotation, WeightRule

SIGNS = Rotation("full", seed=3)
FLOAT = torch.float32
BLOCKWISE = LinearCase(WeightRule(4, "minmax"), ActivationRule(4, 64), None, 256, 17, FLOAT)
GROUPED = LinearCase(WeightRule(4, "minmax", 64), ActivationRule(8), None, 256, 17, FLOAT)
MANY = LinearCase(WeightRule(4, "minmax"), ActivationRule(8), None, 256, 300, FLOAT)
FULL = LinearCase(WeightRule(4, "minmax", 64), None, None, 256, 3, FLOAT)
CHECKS = {
    "blockwise linear": partial(checks.check_linear, case=BLOCKWISE),
    "grouped linear": partial(checks.check_linear, case=GROUPED),
    "many tokens": partial(checks.check_linear, case=MANY),
    "weight-only linear": partial(checks.check_linear, case=FULL),
    "weight-only linear of float64": partial(checks.check_linear, case=replace(FULL, dtype=torch.float64)),
    "integer sums": checks.check_integer_sums,
    "views": checks.check_views,
    "weight ties": checks.check_weight_ties,
    "activation ties": checks.check_activation_ties,
    "signed scales": checks.check_signed_scales,
    "signed": partial(checks.check_activation, rule=ActivationRule(4, 64, "signed"), rotation=SIGNS, dtype=FLOAT),
    "activation": partial(
        checks.check_activation, rule=ActivationRule(4, 128, "gaussian"), rotation=SIGNS, dtype=FLOAT
    ),
    "per token": partial(checks.check_activation, rule=ActivationRule(8), rotation=SIGNS, dtype=FLOAT),
    "rotation": partial(checks.check_rotation, rotation=SIGNS, in_features=768),
    "regular rotation": partial(checks.check_rotation, rotation=Rotation("regular"), in_features=768),
    "decoding": partial(checks.check_dequantize, rule=WeightRule(4, "minmax", 64), in_features=256),
    "min-max": partial(checks.check_weight, rule=WeightRule(4, "minmax", 64), in_features=256, dtype=FLOAT),
    "BGR": partial(checks.check_weight, rule=WeightRule(4, "bgr"), in_features=256, dtype=FLOAT),
    "one start": partial(checks.check_weight, rule=WeightRule(4, "bgr", num_bounds=1), in_features=256, dtype=FLOAT),
    "to the end": partial(
        checks.check_weight, rule=WeightRule(4, "bgr", 128, tolerance=0.0), in_features=256, dtype=FLOAT
    ),
}
