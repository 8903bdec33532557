"""One benchmark by name: ``python -m benchmarks gpu_linear --quick``. Without a name, what there is."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every module here that has a ``main``."""
    return sorted(path.stem for path in HERE.glob("[!_]*.py"))


def main(arguments: list[str]) -> None:
    """Runs the benchmark that is named first with the options after it."""
    if not arguments or arguments[0] not in names():
        for name in names():
            summary = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
            print(f"{name:22} {summary.splitlines()[0]}")
        raise SystemExit(f"no benchmark is called {arguments[0]!r}" if arguments else 0)
    import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
