"""A Python for each peer: a virtual environment made once, or one that the user names."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import sysconfig
import venv
from collections import deque
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from dvdq_eval.peers.records import Peer
from dvdq_eval.staging import complete_folder
from dvdq_reference.spec.errors import DvdqError

CACHE_VARIABLE = "DVDQ_EVAL_CACHE"
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

_LAST_LINES = 5


def python_of(peer: Peer) -> Path:
    """An interpreter that has ``peer`` and the versions of :data:`SHARED` that are installed here.

    It is the one that ``DVDQ_PEER_PYTHON_<PEER>`` names, or that of ``<cache>/peers/<peer>-<hash>``, made if missing;
    the hash is of the requirements and this Python's version, the cache ``DVDQ_EVAL_CACHE`` or ``~/.cache/dvdq-eval``.
    pip's progress goes to stderr; its configuration is the user's.

    Raises:
        DvdqError: an interpreter is named that is none, or the environment cannot be made; nothing half-made remains.
    """
    variable = PYTHON_VARIABLE + peer.name.upper().replace("-", "_")
    named = os.environ.get(variable)
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise DvdqError("peer's Python", where=variable, expected="an interpreter", got=named)
        return Path(named).absolute()
    wanted = requirements(peer)
    key = hashlib.sha256("\n".join([platform.python_version(), *wanted]).encode()).hexdigest()[:12]
    folder = _cache() / "peers" / f"{peer.name}-{key}"
    if not _python_in(folder).is_file():
        _make(folder, wanted)
    return _python_in(folder)


def requirements(peer: Peer) -> tuple[str, ...]:
    """What pip is asked for, each with one version; no local part (``+cpu``), which only its own index knows."""
    pinned = [f"{peer.name}=={peer.version}"]
    for name in SHARED:
        version, _, _ = metadata.version(name).partition("+")
        pinned.append(f"{name}=={version}")
    return tuple(pinned)


def _cache() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else Path.home() / ".cache" / "dvdq-eval"


def _python_in(folder: Path) -> Path:
    scripts = sysconfig.get_path("scripts", "venv", vars={"base": str(folder)})
    return Path(scripts) / ("python.exe" if os.name == "nt" else "python")


def _make(folder: Path, wanted: Sequence[str]) -> None:
    """The environment ``folder``, complete or not at all; only its interpreter may be called, as it is made elsewhere.

    Its name is free until the end. If another process takes it meanwhile, that environment is the same.
    """
    try:
        with complete_folder(folder, frozenset()) as fresh:
            sys.stderr.write(f"Making {folder}\n")
            try:
                venv.create(fresh, with_pip=True, symlinks=os.name != "nt")
            except subprocess.CalledProcessError as error:
                last = (error.output or b"").decode(errors="replace").splitlines()[-_LAST_LINES:]
                raise _failed(folder, "a virtual environment with pip", last) from error
            _install(folder, _python_in(fresh), wanted)
    except DvdqError:
        if not _python_in(folder).is_file():
            raise


def _install(folder: Path, python: Path, wanted: Sequence[str]) -> None:
    command = [str(python), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *wanted]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            sys.stderr.write(line)
            last.append(line)
    if pip.returncode != 0:
        raise _failed(folder, f"pip to install {' '.join(wanted)}", last)


def _failed(folder: Path, expected: str, last: Sequence[str]) -> DvdqError:
    got = " | ".join(line.strip() for line in last if line.strip())
    return DvdqError("peer's environment", where=str(folder), expected=expected, got=got or "a failure without words")
