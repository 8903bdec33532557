"""Other people's packages: virtual environments that they need for themselves, and scripts that run in them."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvdq_eval.records import complete_folder
from dvdq_reference.spec.errors import DvdqError

CACHE_VARIABLE = "DVDQ_EVAL_CACHE"
_LAST_LINES = 5


def named_python(operation: str, variable: str) -> Path | None:
    """The interpreter that an environment variable names; None if it is not set.

    Raises:
        DvdqError: it names something else.
    """
    named = os.environ.get(variable)
    if not named:
        return None
    if not os.access(named, os.X_OK) or not Path(named).is_file():
        raise DvdqError(operation, where=variable, expected="an interpreter", got=named)
    return Path(named).absolute()


def cache_folder() -> Path:
    """``DVDQ_EVAL_CACHE``, or ``~/.cache/dvdq-eval``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else Path.home() / ".cache" / "dvdq-eval"


def environment_folder(name: str, contents: Sequence[str]) -> Path:
    """``<cache>/<name>-<hash of contents>``."""
    key = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    return cache_folder() / f"{name}-{key}"


def python_in(folder: Path) -> Path:
    """The interpreter of an environment, made or not."""
    scripts = sysconfig.get_path("scripts", "venv", vars={"base": str(folder)})
    return Path(scripts) / ("python.exe" if os.name == "nt" else "python")


def make_environment(
    operation: str, folder: Path, installs: Sequence[Sequence[str]], base: Path = Path(sys.executable)
) -> Path:
    """The interpreter of ``folder``, which is made, complete or not at all, if it is not there.

    What the packages install as commands may not be called: the environment is made elsewhere and moved. Its name is
    free until the end; if another process takes it meanwhile, that environment is the same.

    Args:
        operation: for errors.
        folder: e.g. :func:`environment_folder` of all that decides what is installed.
        installs: arguments of ``pip install``, one call after another; pip's configuration is the user's, and what it
            says goes to standard error.
        base: an interpreter to make it from.
    """
    python = python_in(folder)
    if python.is_file():
        return python
    try:
        with complete_folder(folder, frozenset()) as fresh:
            sys.stderr.write(f"Making {folder}\n")
            _run(operation, folder, "a virtual environment with pip", [str(base), "-I", "-m", "venv", str(fresh)])
            for arguments in installs:
                pip = [str(python_in(fresh)), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
                _run(operation, folder, f"pip to install {' '.join(arguments)}", [*pip, *arguments])
    except DvdqError:
        if not python.is_file():
            raise
    return python


def _run(operation: str, folder: Path, expected: str, command: Sequence[str]) -> None:
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stderr.write(line)
            last.append(line)
    if process.returncode != 0:
        got = " | ".join(line.strip() for line in last if line.strip())
        raise DvdqError(operation, where=str(folder), expected=expected, got=got or "a failure without words")


@dataclass(frozen=True)
class Script:
    """A script of this project and the Python that runs it, which need not know the project.

    Attributes:
        python: an interpreter.
        path: of the script; its one argument is a file that holds its request as JSON.
        environ: variables that are set for it.
    """

    python: Path
    path: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    def run(
        self, request: Mapping[str, Any], *, operation: str, where: str, expected: str, timeout: float
    ) -> Generator[dict[str, Any]]:
        """What the script prints, object by object, while it runs; close it to end the script.

        Args:
            request: its argument.
            operation, where, expected: for errors.
            timeout: seconds from each line to the next.

        Raises:
            DvdqError: a silence longer than ``timeout``, or an exit status; with the last lines of standard error.
        """
        with tempfile.TemporaryDirectory(prefix="dvdq-script-") as temporary:
            path = Path(temporary) / "request.json"
            path.write_text(json.dumps(request), encoding="utf-8")
            with (Path(temporary) / "stderr").open("w+", encoding="utf-8", errors="replace") as stderr:

                def failure(what: str) -> DvdqError:
                    stderr.seek(0)
                    last = [line.strip() for line in stderr if line.strip()][-_LAST_LINES:]
                    return DvdqError(operation, where=where, expected=expected, got=" | ".join([what, *last]))

                process = subprocess.Popen(
                    [str(self.python), "-I", str(self.path), str(path)],
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, **self.environ},
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
                lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
                reader = threading.Thread(target=_pass_on, args=(process, lines), daemon=True)
                reader.start()
                try:
                    while (line := lines.get(timeout=timeout)) is not None:
                        yield json.loads(line)
                    status = process.wait(timeout=timeout)
                except (queue.Empty, subprocess.TimeoutExpired) as error:
                    raise failure(f"nothing for {timeout:g} s") from error
                finally:
                    _kill(process)
                    process.wait()
                    reader.join()
                if status != 0:
                    raise failure(f"exit status {status}")


def _kill(process: subprocess.Popen[str]) -> None:
    """End it and what it started, which may hold its standard output."""
    if os.name == "nt":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    """Everything from the process's standard output, then None."""
    assert process.stdout is not None
    with process.stdout as stdout:
        for line in stdout:
            lines.put(line)
    lines.put(None)
