"""What is counted in a disassembly: a loop of products, or the products of a loop that was unrolled."""

from __future__ import annotations

from dvdq_kernels.sass import instructions, tensor_loop, tensor_stretch

PRODUCT = "        /*0010*/                   IMMA.16832.S8.S8 R4, R8.ROW, R12.COL, R4 ;\n"
LOAD = "        /*0000*/                   LDS R8, [R2] ;\n"
BACK = "        /*0020*/              @!P0 BRA `(.L_x_1) ;\n"
MULTIPLIED = 16 * 8 * 32


def test_a_loop_is_what_lies_between_its_label_and_the_branch_back() -> None:
    code = LOAD + PRODUCT + ".L_x_1:\n" + LOAD + PRODUCT + PRODUCT + BACK + LOAD
    assert len(instructions(code)) == 7
    assert tensor_loop(code) == (4, 2 * MULTIPLIED)


def test_of_an_unrolled_loop_what_lies_between_its_products_is_counted() -> None:
    code = LOAD + 3 * (PRODUCT + LOAD)
    assert tensor_loop(code) == (0, 0)
    assert tensor_stretch(code) == (5, 3 * MULTIPLIED)


def test_without_a_product_nothing_is() -> None:
    assert tensor_loop(LOAD) == tensor_stretch(LOAD) == (0, 0)
