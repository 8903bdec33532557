"""The ``dvdq`` command: one file a subcommand; other packages add theirs through the entry points ``dvdq.commands``.

A subcommand is imported when it runs: torch and diffusers take seconds, and ``dvdq --help`` needs neither.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
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
    "export": "dvdq_models.cli.export:export",
    "calibrate": "dvdq_models.cli.calibrate:calibrate",
    "tune-delta": "dvdq_models.cli.tune_delta:tune",
}


class LateCommands(TyperGroup):
    """Subcommands by where their functions, or groups of further ones, lie; a subclass says where."""

    _listing = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._places = self.places()

    def places(self) -> Mapping[str, str]:
        """``module:name`` of each command."""
        raise NotImplementedError

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
        found = getattr(importlib.import_module(module), function)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        single = typer.Typer(add_completion=False)
        single.command(name=cmd_name)(found)
        return typer.main.get_command(single)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """What the group does, without importing its commands."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def _first_line(module: str, function: str) -> str:
    """The first line of a function's docstring, or of its module's if it is none, read from its source."""
    package, *inside = module.split(".")
    # The whole name would be looked up by importing the packages around it.
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).parent.joinpath(*inside).with_suffix(".py").read_bytes())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function)
    return (ast.get_docstring(next(functions, tree)) or "").partition("\n")[0]


class _Commands(LateCommands):
    def places(self) -> Mapping[str, str]:
        return _COMMANDS | {found.name: found.value for found in entry_points(group="dvdq.commands")}


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_show_locals=False)


@app.callback()
def dvdq() -> None:
    """Data-free 4-bit quantization of video diffusion transformers."""


def main() -> None:
    """Run the command; :func:`~dvdq_models.cli.console.run_command` says how it ends."""
    run_command(app)
