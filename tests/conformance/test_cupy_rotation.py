"""What conformance does not ask of CUDA's rotated tiles: sizes that fit none, blocks across warps, packed codes."""

from __future__ import annotations

import pytest
import torch

import dvdq_kernels as kernels
from conformance import cases, checks
from conformance.test_backends import places
from dvdq_kernels.activation_codes import pack_codes
from dvdq_kernels.refusals import absence
from dvdq_reference.spec.recipe import ActivationRule, Rotation

DEVICES = [device for backend, device in places("rotate", "rotate_quantize") if backend == "cupy"]
FULL, BLOCK = Rotation("full"), Rotation("block", seed=5)
TARGETS = (80, 86, 89, 90, 100, 120)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("in_features", [4, 20, 48, 384, 2048, 4480, 20480, 28672, 57344])
def test_sizes_that_no_model_has(device: str, in_features: int) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        checks.check_rotation("cupy", device, Rotation("full", seed=1), in_features, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("rotation", "in_features", "block"),
    [
        *((FULL, 3072, block) for block in (32, 192, 1024, 3072)),
        *((FULL, 12288, block) for block in (64, 4096)),
        *((BLOCK, 8960, block) for block in (128, 448)),
    ],
)
def test_packed_codes_are_the_others(device: str, rotation: Rotation, in_features: int, block: int) -> None:
    x = cases.gaussian(5, in_features, seed=7, dtype=torch.bfloat16).to(device)
    rule = ActivationRule(4, block)
    with checks.poisoned():
        plain, packed = (
            kernels.rotate_quantize(x, rule, rotation=rotation, backend="cupy", packed=choice)
            for choice in (False, True)
        )
    assert torch.equal(packed.codes, pack_codes(plain.codes))
    assert torch.equal(packed.scale, plain.scale)
    assert torch.equal(packed.token_sum, plain.token_sum)
    # Both are the quantized rotation, whose last bit may round apart where a value lies on a tie.
    largest = kernels.rotate(x.float(), rotation, backend="cupy").reshape(5, -1, block).abs().amax(dim=-1)
    torch.testing.assert_close(plain.scale, largest / 7, rtol=4 * 2.0**-24, atol=0)


@pytest.mark.skipif(absence("cupy") is not None, reason=str(absence("cupy")))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("in_features", [1536, 3072, 8960, 15360])
def test_the_machine_code_of_a_rotation_stays_in_registers(target: int, in_features: int) -> None:
    from dvdq_kernels.backends.cupy.activation import rotate_quantize
    from dvdq_kernels.backends.cupy.compilation import compile_launch
    from dvdq_kernels.gpu import recording

    with recording(target) as record:
        x = torch.empty((4096, in_features), dtype=torch.bfloat16, device="meta")
        rotate_quantize(x, 8, 128, "absmax", "full", None, False)
        rotate_quantize(x, 4, None, "gaussian", "full", 3, True)
    for launch in record.launches:
        compiled = compile_launch(launch, target)
        # Two registers, which NVRTC 13.0 keeps in memory and 13.5 does not.
        assert compiled.stack <= (8 if in_features == 15360 else 0)
        # Each warp multiplies 16 rows by all of a token, 16 by 8 values at a time; a load brings two such operands.
        products = launch.threads // 32 * launch.constants["WIDTH"] // 8
        assert compiled.count(r"HMMA\.16816\.F32\.BF16") == products
        assert compiled.count("LDSM") == products // 2
