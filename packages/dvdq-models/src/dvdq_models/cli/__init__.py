"""The ``dvdq`` command: one file a subcommand; other packages add theirs through the entry points ``dvdq.commands``.

A subcommand is imported when it runs: torch and diffusers take seconds, and ``dvdq --help`` needs neither.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dvdq_models.cli.console import run_command

_COMMANDS = {
    "quantize": "dvdq_models.cli.quantize:quantize",
    "generate": "dvdq_models.cli.generate:generate",
    "inspect": "dvdq_models.cli.inspect:inspect",
    "calibrate": "dvdq_models.cli.calibrate:calibrate",
    "tune-delta": "dvdq_models.cli.tune_delta:tune",
}


class _Commands(TyperGroup):
    """Subcommands by where their functions lie."""

    _listing = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._places = _COMMANDS | {found.name: found.value for found in entry_points(group="dvdq.commands")}

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, imported or not."""
        return list(self._places)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; for a list of all, no more than its name and first line."""
        if cmd_name not in self._places:
            return None
        module, _, function = self._places[cmd_name].partition(":")
        if self._listing:
            return TyperCommand(name=cmd_name, help=_first_line(module, function))
        single = typer.Typer(add_completion=False)
        single.command(name=cmd_name)(getattr(importlib.import_module(module), function))
        return typer.main.get_command(single)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """What the group does, without importing its commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def _first_line(module: str, function: str) -> str:
    """The first line of a function's docstring, read from its source."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def dvdq() -> None:
    """Data-free 4-bit quantization of video diffusion transformers."""


def main() -> None:
    """Run the command; :func:`~dvdq_models.cli.console.run_command` says how it ends."""
    run_command(app)
