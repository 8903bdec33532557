"""Who the peers are, in which widths they are measured, and the environment of each: made once, or named."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from dvdq_eval.environments import environment_folder, make_environment, named_python
from dvdq_eval.peers.comfy import write_layers
from dvdq_models.families.family import Treatment


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
        give: writes, of a transformer in full precision, its treatments and the options, a file of what the peer needs
            of us; its process gets the path as the option ``layers``.
    """

    name: str
    version: str
    environ: Mapping[str, str] = field(hash=False)
    bits: str = "full precision"
    options: Mapping[str, Any] | None = field(default=None, hash=False)
    give: Callable[[nn.Module, Mapping[str, Treatment], Mapping[str, Any], Path], None] | None = None

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

# ComfyUI's operators, whose eager backend runs on a CPU, on codes of its own quantizer or of ours in the same format.
# For the format of weight-only linears it has no quantizer: those codes are ours beside both.
COMFY_KITCHEN = Peer("comfy-kitchen", "0.2.40", MappingProxyType({}), give=write_layers)

ORBITQUANT_W4A4 = ORBITQUANT.at("W4A4", recipe="w4a4")
ORBITQUANT_W4A6 = ORBITQUANT.at("W4A6", recipe="w4a6")
SDNQ_UINT4 = SDNQ.at("uint4", weights_dtype="uint4")
COMFY_W4A4 = COMFY_KITCHEN.at("W4A4", format="convrot_w4a4", codes="its own")
COMFY_W4A8 = COMFY_KITCHEN.at("W4A8", format="asym_w4a8_int8", codes="its own")
COMFY_W4A4_OURS = COMFY_KITCHEN.at("W4A4, our codes", format="convrot_w4a4", codes="ours")
COMFY_W4A8_OURS = COMFY_KITCHEN.at("W4A8, our codes", format="asym_w4a8_int8", codes="ours")


PYTHON_VARIABLE = "DVDQ_PEER_PYTHON_"
"""With the peer's name in capitals: ``DVDQ_PEER_PYTHON_SDNQ`` is an interpreter to take instead of making one."""

SHARED = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "ftfy",
    "huggingface-hub",
    "numpy",
    "safetensors",
    "tokenizers",
)
"""What a full-precision video depends on: an environment has the versions that run here."""


def python_of(peer: Peer) -> Path:
    """An interpreter that has ``peer`` and the versions of :data:`SHARED` that are installed here.

    It is the one that ``DVDQ_PEER_PYTHON_<PEER>`` names, or that of ``<cache>/peers/<peer>-<hash>``, made if missing;
    the hash is of the requirements and this Python's version.

    Raises:
        DvdqError: an interpreter is named that is none, or the environment cannot be made; nothing half-made remains.
    """
    named = named_python("peer's Python", PYTHON_VARIABLE + peer.name.upper().replace("-", "_"))
    if named is not None:
        return named
    wanted = requirements(peer)
    folder = environment_folder(f"peers/{peer.name}", [platform.python_version(), *wanted])
    return make_environment("peer's environment", folder, [wanted])


def requirements(peer: Peer) -> tuple[str, ...]:
    """What pip is asked for, each with one version; no local part (``+cpu``), which only its own index knows."""
    pinned = [f"{peer.name}=={peer.version}"]
    for name in SHARED:
        version, _, _ = metadata.version(name).partition("+")
        pinned.append(f"{name}=={version}")
    return tuple(pinned)
