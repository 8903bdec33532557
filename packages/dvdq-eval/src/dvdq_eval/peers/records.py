"""Who the peers are, in which widths they are measured, and what their environments hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class Peer:
    """A package that quantizes a diffusers transformer in place; ``generate.py`` knows how it is called.

    Attributes:
        name: of its distribution on PyPI, e.g. ``orbitquant``.
        version: that was read and measured; its environment holds exactly this one.
        environ: variables that its process starts with.
    """

    name: str
    version: str
    environ: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Configuration:
    """One column of a comparison, e.g. ``ORBITQUANT_W4A4``.

    Attributes:
        peer: whose it is.
        name: for people, without the peer, e.g. ``W4A4``.
        options: of the peer's own entry point; None leaves the model in full precision.
    """

    peer: Peer
    name: str
    options: Mapping[str, Any] | None = field(hash=False)

    @property
    def label(self) -> str:
        """For people, e.g. ``orbitquant W4A4``."""
        return f"{self.peer.name} {self.name}"

    @property
    def slug(self) -> str:
        """For file names, e.g. ``orbitquant-w4a4``."""
        return self.label.lower().replace(" ", "-")


def full_precision(peer: Peer) -> Configuration:
    """The model as it is, in the peer's environment: its videos must be ours, bit for bit."""
    return Configuration(peer, "full precision", None)


# Random permuted block-Hadamard rotation, then Lloyd-Max codebooks for weights and for activations. Neither kernels
# fetched at run time nor codebooks that an earlier run left behind may change what is computed or how long it takes.
ORBITQUANT = Peer(
    "orbitquant",
    "0.15.0",
    MappingProxyType({"ORBITQUANT_KERNELS_AUTOFETCH": "0", "ORBITQUANT_DISABLE_CODEBOOK_DISK_CACHE": "1"}),
)
# Min-max over groups of 64 weights, activations in full. It compiles itself where it finds a compiler; here nowhere.
SDNQ = Peer("sdnq", "0.2.8", MappingProxyType({"SDNQ_USE_TORCH_COMPILE": "0"}))

ORBITQUANT_W4A4 = Configuration(ORBITQUANT, "W4A4", MappingProxyType({"recipe": "w4a4"}))
ORBITQUANT_W4A6 = Configuration(ORBITQUANT, "W4A6", MappingProxyType({"recipe": "w4a6"}))
SDNQ_UINT4 = Configuration(SDNQ, "uint4", MappingProxyType({"weights_dtype": "uint4"}))

CONFIGURATIONS = (ORBITQUANT_W4A4, ORBITQUANT_W4A6, SDNQ_UINT4)


def configuration_of(label: str) -> Configuration:
    """The configuration of a label, e.g. ``orbitquant W4A4``."""
    by_label = {configuration.label: configuration for configuration in CONFIGURATIONS}
    if label not in by_label:
        raise DvdqError("peer", expected=" or ".join(by_label), got=repr(label))
    return by_label[label]


def describe_peer(label: str) -> dict[str, Any]:
    """All that decides what a peer's configuration makes, JSON-ready."""
    found = configuration_of(label)
    peer = found.peer
    return {
        "name": peer.name,
        "version": peer.version,
        "environ": dict(peer.environ),
        "options": None if found.options is None else dict(found.options),
    }
