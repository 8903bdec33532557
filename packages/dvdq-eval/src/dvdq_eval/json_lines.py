"""Lines of JSON from a script that runs in another environment's Python."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvdq_reference.spec.errors import DvdqError

_LAST_LINES = 5


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
