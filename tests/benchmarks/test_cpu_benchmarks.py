"""The benchmarks for a CPU at tiny shapes and with hardly a second to measure in."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks import cpu_compile, cpu_linear, cpu_pass, cpu_roofline
from benchmarks.measuring import cpu, cpu_peers, dots, own, records

from dvdq_kernels import backends
from dvdq_kernels.backends.cpu.instruction_sets import at_hand


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where rows go; two rounds are enough, and a turn is one call."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr(cpu, "LEAST_ROUNDS", 2)
    monkeypatch.setattr(cpu, "TURN", 0.0)
    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield tmp_path
    if cores is not None:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)


def rows(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.rglob("*.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(only: str) -> None:
    cpu_linear.main(["--only", only, "--threads", "1", "--shapes", "5x16x256", "--seconds", "0"])


def test_everything_of_ours_is_checked_and_recorded_beside_full_precision(folder: Path) -> None:
    assert backends()["cpu"] is None
    run("dvdq-kernels")
    if hasattr(os, "sched_getaffinity"):
        assert len(os.sched_getaffinity(0)) == 1
    found = rows(folder)
    ours = [*own.linears("cpu"), *own.weight_only("cpu")]
    assert [row["provider"] for row in found] == ["float32", "bfloat16", *["dvdq-kernels cpu"] * len(ours)]
    assert [row["variant"] for row in found[2:]] == [provider.variant for provider in ours]
    assert float(found[0]["times_float32"]) == float(found[1]["times_bfloat16"]) == 1
    for row in found:
        assert (row["instructions"], row["threads"], row["shape"], row["rounds"]) == (
            at_hand().name,
            "1",
            "5x16x256",
            "2",
        )
        assert float(row["gops"]) == pytest.approx(2 * 5 * 16 * 256 / float(row["p50_s"]) / 1e9, rel=1e-2)
        assert bool(row["limit_share"]) == (not row["variant"].startswith("W4A16"))


def test_a_wrong_product_of_ours_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = own.quantized_linear

    def wrong(*args: object, **options: object) -> torch.Tensor:
        return right(*args, **options) * 1.01

    monkeypatch.setattr(own, "quantized_linear", wrong)
    with pytest.raises(RuntimeError, match="not recorded: an output"):
        run("dvdq-kernels")
    assert not list(folder.rglob("*.csv"))


@pytest.mark.parametrize("peer", [peer.name for peer in cpu_peers.PEERS])
def test_a_peer_that_is_not_installed_is_named_and_not_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], peer: str
) -> None:
    monkeypatch.setattr(cpu_linear, "find_spec", lambda name: None)
    run(peer)
    assert f"{peer} is not installed" in capsys.readouterr().out
    assert not list(folder.rglob("*.csv"))


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    # Of the medians it would be 2: 8 / 4.
    assert cpu.times([1, 8, 9], [1, 1, 4.5]) == 2
    assert cpu.times([8, 1, 9], [2, 4, 9]) == 1


def test_every_call_has_a_turn_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "LEAST_ROUNDS", 4)
    called: list[str] = []
    found = cpu.in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 0)
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 4, "b": 4}
    timed = called[-8:]
    assert all(set(timed[i : i + 2]) == {"a", "b"} for i in range(0, 8, 2))


@pytest.mark.parametrize("loads", [False, True])
def test_the_loop_of_dot_products_is_not_shortened_by_the_compiler(loads: bool) -> None:
    torch.set_num_threads(1)
    (short, few), (long, many) = (dots.dots(passes, loads=loads) for passes in (2_000, 32_000))
    assert many == 16 * few
    found = cpu.in_turns({"short": short, "long": long}, 0.2)
    assert min(found["long"]) > 8 * min(found["short"])


def test_the_probes_are_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_roofline, "COPIED", 2**16)
    monkeypatch.setattr(cpu_roofline, "SECONDS", 0.0)
    cpu_roofline.main([])
    threads = len(dict.fromkeys((1, os.cpu_count())))
    found = rows(folder)
    assert len(found) == 5 * threads
    *probes, copied = found[:5]
    assert all(float(row["gops"]) > 0 for row in probes)
    assert float(copied["gb_per_s"]) == pytest.approx(2 * 2**16 / float(copied["p50_s"]) / 1e9, rel=1e-2)


def test_passes_of_a_whole_model_are_recorded_beside_both_full_precisions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_pass, "SECONDS", 0.0)
    cpu_pass.main(["wan"])
    found = rows(folder)
    providers = ["float32", "bfloat16", "DVD-Quant W4A8", "DVD-Quant W4A4"]
    assert [row["provider"] for row in found] == providers * len(dict.fromkeys((1, os.cpu_count())))
    assert {row["shape"] for row in found} == {"wan, 80 tokens"}
    assert float(found[0]["times_float32"]) == float(found[1]["times_bfloat16"]) == 1


def test_blocks_of_a_published_model_are_cut_from_its_configuration(tmp_path: Path) -> None:
    subject = cpu_pass.open_model(cpu_pass.CUT, tmp_path)
    assert (subject.weights, subject.tokens) == (None, 2240)
    assert json.loads((tmp_path / "config.json").read_text())["num_layers"] == 4


def test_the_first_call_of_a_process_is_recorded_cold_and_warm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVDQ_KERNELS_CACHE", str(folder))
    monkeypatch.setattr(cpu_compile, "PROCESSES", 2)
    said = iter([{"first": 3.0, "later": 1.0}, {"first": 2.0, "later": 0.5}] * 2)
    monkeypatch.setattr(cpu_compile, "run_json", lambda *arguments, **options: next(said))
    cpu_compile.main([])
    found = {row["variant"]: float(row["p50_s"]) for row in rows(folder)}
    assert found == {"nothing compiled": 3.0, "kept on disk": 2.0, "later calls": 0.5}
