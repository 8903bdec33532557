"""Every ``module:name`` that a page names exists, and the table of equations is complete."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EQUATIONS = (DOCS / "equations.md").read_text()
NAMES = sorted({name for page in DOCS.glob("*.md") for name in re.findall(r"`(dvdq_[\w.]+:\w+)`", page.read_text())})


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_the_pages_exists(name: str) -> None:
    module, attribute = name.split(":")
    assert hasattr(importlib.import_module(module), attribute)


def test_every_equation_names_its_oracle() -> None:
    rows = re.findall(r"^\| (Eq\. (\d+)(?:–(\d+))?|Alg\. 1|Sec\. 4\.3)[^|]*\|[^|]*\|([^|]*)\|", EQUATIONS, re.MULTILINE)
    assert all("dvdq_reference.oracle" in oracle for *_, oracle in rows)
    covered = {n for _, first, last, _ in rows if first for n in range(int(first), int(last or first) + 1)}
    assert covered == set(range(1, 12))
    assert {"Alg. 1", "Sec. 4.3"} <= {row[0] for row in rows}
