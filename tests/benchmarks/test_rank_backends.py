"""What was timed on a GPU becomes what ``"auto"`` prefers there."""

from __future__ import annotations

import csv
from dataclasses import fields
from pathlib import Path

import pytest
from benchmarks import rank_backends
from benchmarks.measuring import records, row

from dvdq_kernels import ranking
from dvdq_kernels.call import Call, Place

GPU = "NVIDIA Imaginary"


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows as ``records.append`` writes them."""
    path.parent.mkdir(exist_ok=True)
    constant = {field.name: "0" for field in fields(row.Row)}
    constant |= {"device": GPU, "capability": "9.0", "commit": "abc", "versions": "torch 2", "date": "2026-12-01"}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(constant), lineterminator="\n")
        writer.writeheader()
        writer.writerows(constant | row for row in rows)


def linear(
    backend: str, seconds: float, shape: str = "1000x300x256", variant: str = "W4A8 token, product alone"
) -> dict[str, object]:
    return {"provider": f"dvdq-kernels {backend}", "variant": variant, "shape": shape, "p50_s": seconds}


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    return tmp_path / "ranking.json"


def test_the_latest_times_of_two_backends_are_read_as_they_are_written(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [linear("cupy", 9.0), linear("cupy", 2.0) | {"date": "2026-12-02", "commit": "def"}, linear("triton", 3.0)]
    other = [
        linear("triton", 1.0, variant="W4A8 token"),
        linear("cupy", 1.0, "1x24x256"),
        linear("torch", 1.0, "8x8x8"),
    ]
    peers = [{"provider": "torchao", "variant": "W4A8 token, product alone", "shape": "1000x300x256", "p50_s": 1.0}]
    write(output.parent / "gpu" / "gpu_linear.csv", rows + other + peers)
    quantizers = [linear("cupy", 5.0, "1000x256", "A8 token"), linear("triton", 4.0, "1000x256", "A8 token")]
    write(output.parent / "gpu" / "gpu_rotate_quantize.csv", quantizers)
    rank_backends.main(["--output", str(output)])
    monkeypatch.setattr(ranking, "RANKING", output)
    place = Place("cuda", 90, GPU)
    found = ranking.measured(Call("quantized_linear", place, None, 8, 4, (1000, 300, 256, 256)))
    assert found is not None
    assert found.times == pytest.approx({"cupy": 2.0, "triton": 3.0})
    assert found.source == f"measured on {GPU} at 1024×512×256×256: cupy 2e+03 ms, triton 3e+03 ms"
    found = ranking.measured(Call("rotate_quantize", place, None, 8, None, (1000, 256, 256)))
    assert found is not None
    assert found.times == pytest.approx({"cupy": 5.0, "triton": 4.0})
    run = rank_backends.run_of(output.parent / "gpu")
    assert run is not None
    assert {name: run[name] for name in ("capability", "date", "commits")} == {
        "capability": 90,
        "date": "2026-12-02",
        "commits": ["abc", "def"],
    }
    assert len(run["rows"]) == 2


def test_one_backend_alone_ranks_nothing(output: Path) -> None:
    write(output.parent / "gpu" / "gpu_linear.csv", [linear("triton", 1.0)])
    rank_backends.main(["--output", str(output)])
    assert output.read_text() == '{\n "runs": []\n}\n'


def test_every_format_of_the_benchmarks_has_a_name_here() -> None:
    from benchmarks import gpu_linear, gpu_rotate_quantize

    for script, suite in (("gpu_linear", gpu_linear), ("gpu_rotate_quantize", gpu_rotate_quantize)):
        ours = {provider.variant for provider in suite.SUITE.own("torch") if provider.name == "dvdq-kernels torch"}
        assert set(rank_backends.FORMATS[script]) <= ours


def test_the_ranking_that_is_shipped_is_that_of_the_results(tmp_path: Path) -> None:
    rank_backends.main(["--output", str(tmp_path / "ranking.json")])
    assert (tmp_path / "ranking.json").read_text() == rank_backends.RANKING.read_text()
