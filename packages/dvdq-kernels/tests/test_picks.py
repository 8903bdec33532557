"""Which of the recorded tiles a GPU gets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from dvdq_kernels.picks import measured, power_of_two


@dataclass(frozen=True)
class Task:
    tokens: int

    def shape_class(self) -> Task:
        return Task(power_of_two(self.tokens))


@dataclass(frozen=True)
class Config:
    rows: int
    source: str


@pytest.fixture
def path(tmp_path: Path) -> Path:
    def run(device: str, date: str, rows: int, **rest: int) -> dict[str, object]:
        row = {"task": {"tokens": 100}, "config": {"rows": rows}, "microseconds": 1.0}
        return {"device": device, "date": date, "rows": [row], **rest}

    runs = [run("one", "2026-11-01", 16, unpack_from=64), run("one", "2026-11-02", 32), run("other", "2026-11-03", 64)]
    file = tmp_path / "picks.json"
    file.write_text(json.dumps({"runs": runs}))
    return file


def test_the_last_run_on_a_gpu_of_that_name_decides(path: Path) -> None:
    configs, threshold = measured(path, "one", Task, Config)
    assert configs == {Task(128): Config(32, "measured on one, 2026-11-02")}
    assert threshold == 64, "a run that did not measure it leaves it"
    assert measured(path, "other", Task, Config) == ({Task(128): Config(64, "measured on other, 2026-11-03")}, None)


@pytest.mark.parametrize("device", ["third", None])
def test_a_gpu_that_nobody_measured_has_none(path: Path, device: str | None) -> None:
    assert measured(path, device, Task, Config) == ({}, None)


def test_sizes_are_rounded_up() -> None:
    assert [power_of_two(size) for size in (1, 2, 3, 64, 65)] == [1, 2, 4, 64, 128]
