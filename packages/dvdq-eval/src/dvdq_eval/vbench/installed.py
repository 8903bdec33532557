"""What VBench's Python says: its versions and prompts, and a score of staged videos."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvdq_eval.json_lines import Script
from dvdq_eval.vbench.dimensions import Dimension
from dvdq_eval.vbench.prompts import StandardPrompt, standard_prompts
from dvdq_reference.spec.errors import DvdqError

OPERATION = "vbench"
_RUNNER = Path(__file__).with_name("runner.py")
_SECONDS = 120.0
"""That a list of versions may take."""


@dataclass(frozen=True)
class Installed:
    """VBench as some Python has it."""

    python: Path

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of vbench, torch, torchvision and python."""
        found: dict[str, str] = self._described["versions"]
        return found

    @cached_property
    def prompts(self) -> tuple[StandardPrompt, ...]:
        """VBench's own, of our dimensions."""
        return standard_prompts(self._described["prompts"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        where, expected = str(self.python), "a Python with VBench"
        said = Script(self.python, _RUNNER).run(
            {"operation": "describe"}, operation=OPERATION, where=where, expected=expected, timeout=_SECONDS
        )
        answers = list(said)
        if len(answers) != 1:
            raise DvdqError(OPERATION, where=where, expected=expected, got=f"{len(answers)} answers")
        return answers[0]

    def score(
        self,
        dimension: Dimension,
        entries: Sequence[Mapping[str, Any]],
        *,
        title: str,
        weights: Path,
        device: str,
        threads: int,
        timeout: float,
        on_video: Callable[[int], None],
    ) -> tuple[float | None, dict[str, float | None]]:
        """VBench's aggregate, and its value of each video by path, both 0 to 1; null is no number.

        Args:
            dimension: the judge.
            entries: VBench's list, one video an entry.
            title: for errors.
            weights: the folder of the judges' weights.
            device: for torch.
            threads: of torch.
            timeout: seconds that loading the judge may take, and each video.
            on_video: told how many are done.

        Raises:
            DvdqError: a failure of VBench with the last lines of its standard error, or a timeout.
        """
        with tempfile.TemporaryDirectory(prefix="dvdq-vbench-") as out:
            request = {
                "operation": "score",
                "dimension": dimension.name,
                "device": device,
                "threads": threads,
                "cache": str(weights),
                "out": out,
                "entries": list(entries),
            }
            where, expected = f"{title}: {dimension.name}", f"a score of {len(entries)} videos"
            said = Script(self.python, _RUNNER).run(
                request, operation=OPERATION, where=where, expected=expected, timeout=timeout
            )
            scored: dict[str, Any] | None = None
            with closing(said):
                for line in said:
                    if "done" in line:
                        on_video(line["done"])
                    else:
                        scored = line
        if scored is None:
            raise DvdqError(OPERATION, where=where, expected=expected, got="an end without one")
        return scored["score"], {path: _scaled(value, dimension.unit) for path, value in scored["videos"].items()}


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
