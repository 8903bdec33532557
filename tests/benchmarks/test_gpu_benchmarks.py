"""The benchmarks for a GPU run on a CPU at tiny shapes: the code is theirs, only clock and device are stand-ins."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from benchmarks import gpu_bgr, gpu_linear, gpu_rotate_quantize, gpu_weight_only
from benchmarks.measuring import gpu, own, peers, records, workloads
from benchmarks.measuring.case import Case, Job, Provider
from benchmarks.measuring.row import Row
from benchmarks.measuring.suite import OWN, Suite

from dvdq_kernels import QuantizedActivation
from dvdq_reference.spec.recipe import ActivationRule

CPU = torch.device("cpu")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKEND = "triton" if INTERPRETED else "torch"
SECONDS = 0.5


def clock(calls: Sequence[Callable[[], object]], repeat_ms: int = 0) -> gpu.Timing:
    for call in calls:
        call()
    return gpu.Timing(SECONDS / 2, SECONDS, 2 * SECONDS, 1024)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, str]]]:
    """On a CPU, with a clock that says the same of everything; what was recorded when it is called."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "require_gpu", lambda: CPU)
    monkeypatch.setattr(gpu, "ceilings", lambda device: gpu.Ceilings(1e9, {"bf16": 1e9, "int8": 2e9, "int4": 4e9}))
    monkeypatch.setattr(gpu, "measure", clock)
    monkeypatch.setattr(gpu, "elapsed", lambda call: clock([call]).p50)
    monkeypatch.setattr(gpu, "peak_bytes", lambda call: clock([call]).peak_bytes)

    def read() -> list[dict[str, str]]:
        found = []
        for path in tmp_path.rglob("*.csv"):
            with path.open(newline="") as file:
                found += list(csv.DictReader(file))
        return found

    yield read
    torch.set_grad_enabled(True)


Rows = Callable[[], list[dict[str, str]]]


def run(suite: Suite, shape: str) -> None:
    suite.main(["--only", OWN, "--shapes", shape, "--backend", BACKEND])


def test_without_a_gpu_a_benchmark_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu_linear.SUITE.main(["--quick"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu_bgr.main(["--quick"])


@pytest.mark.parametrize(
    ("suite", "shape", "providers"),
    [
        (gpu_linear.SUITE, "17x16x256", {"bf16", "_int_mm"}),
        (gpu_rotate_quantize.SUITE, "5x256", {"copy"}),
        (gpu_weight_only.SUITE, "2x16x256", {"copy", "bf16"}),
    ],
    ids=lambda value: value.operation if isinstance(value, Suite) else None,
)
def test_every_provider_of_ours_is_checked_and_recorded(
    rows: Rows, suite: Suite, shape: str, providers: set[str]
) -> None:
    run(suite, shape)
    found = rows()
    assert {row["provider"] for row in found} == {*providers, f"dvdq-kernels {BACKEND}"}
    assert len(found) == 1 + len(suite.own(BACKEND))
    assert found[0]["provider"] == suite.reference.name
    for row in found:
        assert list(row) == [field.name for field in fields(Row)]
        assert all(row[name] for name in row if name not in ("variant", "note", "capability"))
        assert (row["operation"], row["shape"], row["device"]) == (suite.operation, shape, "cpu")
        assert (float(row["p20_s"]), float(row["p50_s"]), float(row["p80_s"])) == (0.25, 0.5, 1)
        assert float(row["ratio"]) == 1
        assert float(row["floor_s"]) == pytest.approx(float(row["floor_share"]) / 2, rel=1e-4)
        assert float(row["tb_per_s"]) == pytest.approx(int(row["bytes"]) / 0.5e12, rel=1e-4)
    run(suite, shape)
    assert rows()[: len(found)] == found


def test_bytes_and_operations_are_those_of_the_shape() -> None:
    case, rule = Case((33, 24, 256), CPU), own.RULES["W4A8 token"]
    bf16 = peers.BF16.build(case).work
    alone, whole = (build(case, rule, BACKEND).work for build in (own.product, own.whole))
    assert {work.operations for work in (bf16, alone, whole)} == {2 * 33 * 24 * 256}
    assert bf16.bytes == 2 * (33 * 256 + 24 * 256 + 33 * 24)
    assert alone.bytes == 33 * 256 + 24 * 128 + 2 * 33 * 24
    assert whole.bytes == 2 * 33 * 256 + 24 * 128 + 2 * 33 * 24
    ceilings = gpu.Ceilings(1e9, {"bf16": 1e9, "int8": 2e9})
    assert ceilings.floor(whole) == whole.operations / 2e9
    assert ceilings.floor(gpu.Work(7)) == 7e-9


@pytest.mark.parametrize("peer", [p.name for p in (*gpu_linear.SUITE.peers, *gpu_weight_only.SUITE.peers)])
def test_a_peer_that_is_not_installed_is_named_and_not_recorded(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], peer: str
) -> None:
    monkeypatch.setitem(sys.modules, peer, None)
    suite = gpu_linear.SUITE if peer in [p.name for p in gpu_linear.SUITE.peers] else gpu_weight_only.SUITE
    suite.main(["--only", peer, "--shapes", "33x24x256"])
    assert re.search(rf"33x24x256: {peer} .*not measured: ModuleNotFoundError", capsys.readouterr().out)
    assert rows() == []


def test_what_computes_something_else_is_not_recorded(rows: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    def twice(case: Case) -> Job:
        return Job(
            lambda: 2 * case.x @ case.weight.t(),
            lambda out: peers.compare(case, out),
            case.work(x_bytes=2, weight_bytes=2),
        )

    broken = Provider("broken", "", twice, "broken")
    loose = Suite("loose", "linear", ((33, 24, 256),), (), peers.BF16, lambda backend: (), peers=(broken,))
    loose.main(["--only", "broken"])
    assert "broken not measured: RuntimeError: its output is off by 1.00" in capsys.readouterr().out
    assert rows() == []


@pytest.mark.parametrize("part", ["codes", "scale", "token_sum"])
def test_wrong_activations_of_ours_end_the_run(rows: Rows, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    right = own.rotate_quantize

    def wrong(*args: object, **options: object) -> QuantizedActivation:
        found = right(*args, **options)
        # The last token alone, by a step of int8 or a thousandth.
        tensor = getattr(found, part)
        tensor[-1] += 1 if tensor.dtype == torch.int8 else tensor[-1] / 1000
        return found

    monkeypatch.setattr(own, "rotate_quantize", wrong)
    with pytest.raises(SystemExit, match="not recorded"):
        run(gpu_rotate_quantize.SUITE, "5x256")
    assert {row["provider"] for row in rows()} == {"copy"}


@pytest.mark.parametrize("suite", [gpu_linear.SUITE, gpu_weight_only.SUITE], ids=lambda suite: suite.operation)
def test_a_wrong_product_of_ours_ends_the_run(rows: Rows, monkeypatch: pytest.MonkeyPatch, suite: Suite) -> None:
    right = own.quantized_linear

    def wrong(*args: object, **options: object) -> torch.Tensor:
        out = right(*args, **options)
        out[-1, -1] = float("nan")
        return out

    monkeypatch.setattr(own, "quantized_linear", wrong)
    with pytest.raises(SystemExit, match="not recorded: an output"):
        run(suite, "9x24x256")
    assert not any(row["provider"].startswith("dvdq") for row in rows())


def test_one_of_ours_that_fails_costs_the_others_nothing(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the other shapes; the run fails when it is over, and says who."""
    right = own.quantized_linear

    def four_bits_fail(x: object, weight: object, rule: ActivationRule, **options: object) -> torch.Tensor:
        if rule.bits == 4:
            raise RuntimeError("no kernel image")
        return right(x, weight, rule, **options)

    monkeypatch.setattr(own, "quantized_linear", four_bits_fail)
    with pytest.raises(
        SystemExit, match=r"linear: 8 of ours failed\n9x24x256: .* W4A4 token.*: RuntimeError: no kernel"
    ):
        run(gpu_linear.SUITE, "9x24x256,5x16x256")
    ours = [row for row in rows() if row["provider"].startswith("dvdq")]
    assert {row["shape"] for row in ours} == {"9x24x256", "5x16x256"}
    assert len(ours) == 8
    assert all("W4A8" in row["variant"] for row in ours)


def test_rows_say_their_commit_where_there_is_no_repository(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (["init"], [*who, "commit", "--allow-empty", "--message=another project"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.setattr(records, "ROOT", copy)
    for said, expected in (("", "unknown"), ("abc1234", "abc1234")):
        records.commit.cache_clear()
        monkeypatch.setenv("BENCHMARK_COMMIT", said)
        assert records.commit() == expected
    run(gpu_rotate_quantize.SUITE, "5x256")
    assert {row["commit"] for row in rows()} == {"abc1234"}
    records.commit.cache_clear()


def test_bgr_counts_the_rows_that_differ(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    model = workloads.Model(layers=(workloads.Layer(4, 256, 2), workloads.Layer(2, 256, 3)), tokens=(1,))
    monkeypatch.setattr(workloads, "MODELS", {"Tiny": model})
    gpu_bgr.main(["--backend", BACKEND])
    first, second, whole = rows()
    assert (first["operation"], first["shape"], first["note"]) == ("bgr_layer", "4x256", "0 of 4 rows differ")
    assert (second["operation"], second["shape"], second["note"]) == ("bgr_layer", "2x256", "0 of 2 rows differ")
    assert (whole["operation"], whole["variant"], whole["shape"]) == ("bgr_model", "Tiny", "5 layers")
    assert (float(whole["p50_s"]), whole["note"]) == (5 * SECONDS, "0 of 6 rows differ")
    assert int(whole["bytes"]) == 256 * (4 * 2 + 2 * 3) * 5 // 2


def test_the_models_have_the_linears_that_they_have() -> None:
    counts = {name: sum(of.count for of in (*m.layers, *m.modulation)) for name, m in workloads.MODELS.items()}
    assert counts == {"HunyuanVideo": 520, "Wan 2.1 14B": 400, "Wan 2.1 1.3B": 300}
    assert set(gpu_linear.SUITE.quick) <= set(gpu_linear.SUITE.shapes)
    assert set(gpu_rotate_quantize.SUITE.quick) <= set(gpu_rotate_quantize.SUITE.shapes)
    assert workloads.parse("5x256,33x24x256") == ((5, 256), (33, 24, 256))
