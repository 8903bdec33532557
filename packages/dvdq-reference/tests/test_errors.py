"""Bad input is a DvdqError that names the operation, the row or token, what was expected and what came."""

import pickle

import numpy as np
import pytest

from dvdq_reference.oracle import affine, arq, bgr, linear, packing
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.recipe import ActivationRule, Rotation

RULE = ActivationRule(4, None)
GRID = affine.Grid(np.ones((2, 1)), np.zeros((2, 1), np.int64), 4)
CODES = np.zeros((2, 4), np.int64)
MATRIX_ARGUMENTS = {
    "minmax_grid": (affine.minmax_grid, "row"),
    "quantize": (lambda w: affine.quantize(w, GRID), "row"),
    "refine_grid": (bgr.refine_grid, "row"),
    "quantize_block": (lambda x: arq.quantize_block(x, RULE), "token"),
    "quantize_channel": (lambda x: arq.quantize_channel(x, 4), "token"),
    "quantized_linear": (lambda x: linear.quantized_linear(x, CODES, GRID, RULE), "token"),
}


@pytest.mark.parametrize("operation", MATRIX_ARGUMENTS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_values_that_are_not_finite_float32_name_their_row(operation, bad):
    call, name = MATRIX_ARGUMENTS[operation]
    values = np.ones((2, 4))
    values[1, 2] = bad
    with pytest.raises(DvdqError) as caught:
        call(values)
    assert caught.value.operation == operation
    assert caught.value.where == f"{name} 1"
    assert caught.value.expected == "finite values that float32 can hold"
    assert str(caught.value.got) == str(bad)


@pytest.mark.parametrize("operation", MATRIX_ARGUMENTS)
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (4,), (1, 2, 4)])
def test_a_matrix_is_asked_for(operation, shape):
    with pytest.raises(DvdqError) as caught:
        MATRIX_ARGUMENTS[operation][0](np.ones(shape))
    assert (caught.value.operation, caught.value.expected) == (operation, "a non-empty matrix")
    assert caught.value.got == f"shape {shape}"


@pytest.mark.parametrize("operation", MATRIX_ARGUMENTS)
def test_numbers_are_asked_for(operation):
    with pytest.raises(DvdqError, match=f"{operation}: expected real numbers, got dtype"):
        MATRIX_ARGUMENTS[operation][0](np.full((2, 4), "a"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: affine.minmax_grid(np.ones((2, 4)), 9), "minmax_grid: bits: expected .* 2 to 8, got 9"),
        (
            lambda: affine.minmax_grid(np.ones((2, 4)), group_size=3),
            "minmax_grid: .* divides 4 channels exactly, got 3",
        ),
        (lambda: affine.Grid(np.zeros((1, 1)), np.zeros((1, 1), np.int64), 4), "grid: row 0: expected a scale > 0"),
        (lambda: affine.Grid(np.ones((2, 1)), np.zeros((2, 2), np.int64), 4), "grid: expected scale and zero of one"),
        (lambda: affine.quantize(np.ones((3, 4)), GRID), r"quantize: expected 2 rows .* got shape \(3, 4\)"),
        (
            lambda: affine.dequantize(np.array([[0, 1], [16, 0]]), GRID),
            "dequantize: row 1: expected codes from 0 to 15",
        ),
        (lambda: affine.dequantize(np.ones((2, 4)), GRID), "dequantize: expected a non-empty matrix of integers"),
        (lambda: bgr.refine_grid(np.ones((2, 4)), num_bounds=0), "refine_grid: num_bounds: expected at least 1, got 0"),
        (lambda: bgr.refine_grid(np.ones((2, 4)), tolerance=-1.0), "refine_grid: tolerance: expected at least 0"),
        (lambda: bgr.refine_grid(np.ones((2, 4)), tolerance=float("nan")), "refine_grid: tolerance"),
        (lambda: bgr.refine_grid(np.ones((2, 4)), select="best"), "refine_grid: select: expected row or matrix"),
        (lambda: arq.quantize_block(np.ones((2, 4)), ActivationRule(4, 3)), "quantize_block: .* divides 4 .* got 3"),
        (lambda: packing.pack([[0, 1], [4, 0]], 2), "pack: row 1: expected codes from 0 to 3, got 4"),
        (lambda: packing.pack([[0, 1, 2]], 4), "pack: expected an even number .* got 3"),
        (lambda: packing.unpack([[0, 1]], 4, 6), "unpack: expected 3 bytes a row for 6 channels, got 2"),
        (lambda: packing.unpack([[0x44]], 2, 2), "unpack: row 0: expected codes from 0 to 3, got 4"),
        (lambda: linear.quantized_linear(np.ones((1, 3)), CODES, GRID, RULE), "quantized_linear: expected 4 channels"),
        (lambda: linear.quantized_linear(np.ones((1, 4)), CODES[:1], GRID, RULE), "quantized_linear: expected 2 rows"),
        (
            lambda: linear.quantized_linear(np.ones((1, 4)), CODES, GRID, RULE, bias=[1.0]),
            r"quantized_linear: bias: expected shape \(2,\), got shape \(1,\)",
        ),
        (
            lambda: linear.quantized_linear(np.ones((1, 4)), CODES, GRID, RULE, bias=[1.0, float("nan")]),
            "quantized_linear: bias 1: expected a finite number, got nan",
        ),
        (
            lambda: linear.quantized_linear(np.ones((1, 4)), CODES, GRID, RULE, rotation=Rotation("block")),
            "rotation: expected channels in multiples of 256, got 4",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DvdqError, match=message):
        call()


def test_an_error_survives_pickling():
    error = DvdqError("refine_grid", where="row 3", expected="finite values", got="nan")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "refine_grid: row 3: expected finite values, got nan"
