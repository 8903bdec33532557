"""Options that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Option("--recipe", help="minmax, quarot or dvd-quant.")]
Bits = Annotated[str, typer.Option("--bits", help="W{weight}A{activation}: W4A8, W4A4, or W4A6, which switches.")]
Delta = Annotated[float | None, typer.Option("--delta", help="Threshold of the bit switch (W4A6 only).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]
Backend = Annotated[str, typer.Option("--backend", help="auto, torch, triton or cupy.")]
