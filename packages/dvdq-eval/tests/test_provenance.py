"""What says where a measurement comes from never costs the measurement."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dvdq_eval import machine as provenance


def test_a_library_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "LIBRARIES", ("torch", "no-such-library"))
    assert list(provenance.provenance()["libraries"]) == ["torch"]


def test_a_copy_without_its_repository_is_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.provenance()["commit"] is None
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc1234")
    assert provenance.provenance()["commit"] == "abc1234"


def test_a_pass_is_timed_without_what_reads_and_judges_videos() -> None:
    blocked = "import sys; sys.modules |= dict.fromkeys(('av', 'imageio_ffmpeg', 'skimage', 'ftfy'))"
    subprocess.run([sys.executable, "-c", f"{blocked}; import dvdq_eval.cli.latency"], check=True)
