"""Who the peers are, in which widths they are measured, and what their environments hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Peer:
    """A package that quantizes a diffusers transformer in place; ``generate.py`` knows how it is called.

    Attributes:
        name: of its distribution on PyPI, e.g. ``orbitquant``.
        version: that was read and measured; its environment holds exactly this one.
        environ: variables that its process starts with.
        bits: for people, e.g. ``W4A4``.
        options: of its own entry point; None leaves the model in full precision, whose videos in the peer's environment
            must be ours, bit for bit.
    """

    name: str
    version: str
    environ: Mapping[str, str] = field(hash=False)
    bits: str = "full precision"
    options: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def label(self) -> str:
        """For people, e.g. ``orbitquant W4A4``."""
        return f"{self.name} {self.bits}"

    def at(self, bits: str, **options: Any) -> Peer:
        """The package with options of its entry point."""
        return dataclasses.replace(self, bits=bits, options=MappingProxyType(options))

    def to_dict(self) -> dict[str, Any]:
        """All that decides what it makes, JSON-ready."""
        return {
            "name": self.name,
            "version": self.version,
            "environ": dict(self.environ),
            "options": None if self.options is None else dict(self.options),
        }


# Random permuted block-Hadamard rotation, then Lloyd-Max codebooks for weights and for activations. Neither kernels
# fetched at run time nor codebooks that an earlier run left behind may change what is computed or how long it takes.
ORBITQUANT = Peer(
    "orbitquant",
    "0.15.0",
    MappingProxyType({"ORBITQUANT_KERNELS_AUTOFETCH": "0", "ORBITQUANT_DISABLE_CODEBOOK_DISK_CACHE": "1"}),
)
# Min-max over groups of 64 weights, activations in full. It compiles itself where it finds a compiler; here nowhere.
SDNQ = Peer("sdnq", "0.2.8", MappingProxyType({"SDNQ_USE_TORCH_COMPILE": "0"}))

ORBITQUANT_W4A4 = ORBITQUANT.at("W4A4", recipe="w4a4")
ORBITQUANT_W4A6 = ORBITQUANT.at("W4A6", recipe="w4a6")
SDNQ_UINT4 = SDNQ.at("uint4", weights_dtype="uint4")
