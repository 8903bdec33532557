"""A Python for each peer: a virtual environment made once, or one that the user names."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from dvdq_eval.environments import environment_folder, make_environment, named_python
from dvdq_eval.peers.records import Peer

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
