"""``dvdq-eval vbench setup`` and ``dvdq-eval vbench plant``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dvdq_eval.vbench.dimensions import DIMENSIONS
from dvdq_eval.vbench.environment import SERIES, plant, set_up, vbench_python
from dvdq_eval.vbench.installed import Installed
from dvdq_eval.vbench.weights import CACHE_VARIABLE, is_path_check, missing_files, weights_folder


def setup(
    python: Annotated[
        Path | None, typer.Option(help=f"A Python {SERIES} to make the environment from; default: this one.")
    ] = None,
) -> None:
    """Install VBench in an environment of its own (1.9 GB), and say which judges have their weights."""
    installed = Installed(set_up(python))
    versions = ", ".join(f"{name} {version}" for name, version in installed.versions.items())
    folder = weights_folder()
    _say(f"[bold]{installed.python}[/bold]: {versions}")
    _say(f"Weights in [bold]{folder}[/bold]; {CACHE_VARIABLE} names another folder")
    Console().print(_weights(folder))


def plant_weights(
    folder: Annotated[Path, typer.Argument(help=f"A new folder, for {CACHE_VARIABLE} to name.")],
) -> None:
    """Random weights for every judge: VBench's real code runs, and its scores mean nothing."""
    plant(vbench_python(), folder)
    _say(f"[bold]{folder}[/bold]: with {CACHE_VARIABLE} naming it, every score is a path check")


def _say(text: str) -> None:
    Console().print(text, soft_wrap=True, highlight=False)


def _weights(folder: Path) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("dimension", no_wrap=True)
    table.add_column("prompts", justify="right")
    table.add_column("what is missing, and where VBench takes it from", overflow="fold")
    for dimension in DIMENSIONS.values():
        missing = missing_files(dimension.name, folder)
        ready = "[green]ready[/green]" + (", random" if is_path_check(dimension.name, folder) else "")
        told = "\n".join(f"{file.path}\n  {file.address}" for file in missing) or ready
        table.add_row(dimension.name, str(dimension.prompts), told)
    return table
