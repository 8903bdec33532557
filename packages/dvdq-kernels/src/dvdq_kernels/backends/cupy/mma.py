"""Integer products on the tensor cores of any GPU from 8.0 on, by the instruction ``mma``."""

from __future__ import annotations

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.product import Product
from dvdq_kernels.backends.cupy.product_tiles import Task, choose
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.layout import is_packed

WEIGHT_BYTES, WEIGHT_STORED_BYTES, WEIGHT_NIBBLES = range(3)
"""How ``product_mma.cu`` finds a weight: u, codes in bytes, codes in nibbles."""


def multiply(product: Product) -> None:
    """Compute ``product``: INT4 × INT4 where activation codes lie two a byte, else INT8 × INT8.

    The stored layout of a weight is what these instructions take, so that nothing is repacked and there is no second
    copy of a weight. With the highest bit of each nibble flipped, q is q - 8 in two's complement, and a row with its
    even channels low is a row of ``mma…s4``. In ``mma…s8`` nibbles become bytes in the loop: a word of eight channels
    gives a register of the even ones and one of the odd ones, and activations are read in the same order, since a sum
    does not depend on it.

    Widths are multiples of 64 channels where nibbles are multiplied or decoded, else of 32. Operands are aligned to 16.
    """
    packed = product.codes.dtype == torch.uint8
    nibbles = product.weight.dtype == torch.uint8 and is_packed(product.bits)
    task = Task(
        tokens=product.tokens,
        out_features=product.out_features,
        width=product.width,
        parts=product.parts,
        grouped=product.grouped,
        packed=packed,
        decodes=nibbles and not packed,
    )
    config = choose(task, product.out.device)
    stored = WEIGHT_NIBBLES if nibbles else WEIGHT_STORED_BYTES
    row_bytes = product.codes.shape[1]
    steps = row_bytes // config.block_k
    launch(
        Launch(
            "product_mma",
            "product_mma.cu",
            (
                product.codes,
                product.weight,
                np.int64(row_bytes),
                np.int32(steps),
                np.int32(steps // product.parts),
                *product.epilogue_arguments(),
            ),
            {
                "PACKED": packed,
                "WEIGHT": WEIGHT_BYTES if product.weight.dtype == torch.int8 else stored,
                "ONE_STEP": product.parts > 1 and steps == product.parts,
                "BIASED": product.parts > 1 and _largest_sum(product, task.decodes) < 2**22,
                **config.constants(),
                **product.epilogue_constants(),
            },
            grid=-(-product.tokens // config.block_m) * -(-product.out_features // config.block_n),
            threads=config.threads,
            shared=config.shared_memory(task),
            tile=config.tile,
        )
    )


def _largest_sum(product: Product, decodes: bool) -> int:
    """What no sum of a part exceeds; decoded weights count 16 times."""
    largest = code_offset(product.x_bits) * code_offset(product.bits)
    return product.width * largest * (16 if decodes else 1)
