"""Products of int8 codes on Hopper GPUs, whose tensor cores multiply for whole warpgroups (``product_wgmma.cu``)."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch

from dvdq_kernels.backends.cupy.launch import Launch, launch
from dvdq_kernels.backends.cupy.product import Product
from dvdq_kernels.backends.cupy.target import multiprocessors, target_of
from dvdq_kernels.backends.cupy.tensor_map import tensor_map
from dvdq_kernels.gpu import shared_memory
from dvdq_reference.spec.layout import is_packed

SWITCH = "DVDQ_CUPY_WGMMA"
"""Set to 0, leaves everything to ``mma.sync``."""
_TARGET = 90
_BLOCK_M = 128
"""Rows of a tile: two warpgroups multiply 64 each."""
_BLOCK_K = 128
"""Bytes of a row in one step: what a swizzled box of a tensor map holds."""
_THREADS = 384
"""Of a block: of two warpgroups that multiply and one that brings what they need."""
_DECODED = 3
"""Steps of decoded weights: one is written, one is read, and the other warpgroup may still read a third."""
_MOST_STAGES = 8
_BARRIERS = 16
"""Bytes of the two barriers of a stage."""


@dataclass(frozen=True)
class Config:
    """How a product is divided: tiles of 128 × ``block_n`` outputs, ``cluster`` of which share their weight."""

    block_n: int
    cluster: int


def takes(product: Product) -> bool:
    """Whether this kernel multiplies ``product``, else ``mma.sync`` does.

    It needs a Hopper GPU, activation codes of one byte, a weight of int8 or of codes two a byte, rows as stored of a
    multiple of 16 bytes and, where scales change along a row, parts of 32, 64 or a multiple of 128 channels.
    """
    return (
        os.environ.get(SWITCH) != "0"
        and target_of(product.codes.device) == _TARGET
        and product.codes.dtype == torch.int8
        and (product.weight.dtype == torch.int8 or is_packed(product.bits))
        and all(operand.shape[1] % 16 == 0 for operand in (product.codes, product.weight))
        and (product.parts == 1 or product.width in (32, 64) or product.width % _BLOCK_K == 0)
    )


def choose(product: Product) -> Config:
    """The tiles of a product.

    As wide as registers allow, since a wide tile reads least: 256 columns, or 128 where float totals stand beside the
    integer sums. Narrower, down to 64, while there are fewer tiles than multiprocessors. Two blocks of a cluster share
    what they read of the weight where there are tiles for all.
    """
    block_n = 256 if product.parts == 1 else 128
    blocks = multiprocessors(product.codes.device)
    while block_n > 64 and _tiles(product, 1, block_n) < blocks:
        block_n //= 2
    cluster = 2 if product.tokens > _BLOCK_M and _tiles(product, 2, block_n) >= blocks // 2 else 1
    return Config(block_n, cluster)


def multiply(product: Product, decodes: bool) -> None:
    """Write the product; ``decodes`` if its weight is codes two a byte, which are decoded between copy and product."""
    config = choose(product)
    weight_k = _BLOCK_K // 2 if decodes else _BLOCK_K
    stage = _BLOCK_M * _BLOCK_K + config.block_n * weight_k
    decoded = _DECODED if decodes else 0
    fixed = decoded * config.block_n * _BLOCK_K
    stages = min(_MOST_STAGES, (shared_memory(_TARGET) - fixed) // (stage + _BARRIERS))
    launch(
        Launch(
            "product_wgmma",
            "product_wgmma.cu",
            (
                tensor_map(product.codes, (_BLOCK_M, _BLOCK_K), swizzled=True),
                tensor_map(product.weight, (config.block_n // config.cluster, weight_k), swizzled=not decodes),
                np.int32(-(-product.in_features // _BLOCK_K)),
                *product.epilogue_arguments(),
            ),
            {
                "BLOCK_M": _BLOCK_M,
                "BLOCK_N": config.block_n,
                "CLUSTER": config.cluster,
                "STAGES": stages,
                "DECODES": decodes,
                "DECODED": decoded,
                "WIDTH": product.width if product.parts > 1 else _BLOCK_K,
                **product.epilogue_constants(),
            },
            grid=min(
                multiprocessors(product.codes.device) // config.cluster,
                _tiles(product, config.cluster, config.block_n),
            )
            * config.cluster,
            threads=_THREADS,
            shared=fixed + stages * (stage + _BARRIERS),
            tile=f"{_BLOCK_M}×{config.block_n}×{_BLOCK_K}",
        )
    )


def _tiles(product: Product, cluster: int, block_n: int) -> int:
    """How many, counting those of a cluster as one."""
    return -(-product.tokens // (cluster * _BLOCK_M)) * -(-product.out_features // block_n)
