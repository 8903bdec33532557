"""Generation by many workers: the same bytes as by one, whoever dies on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dvdq_eval.methods import FULL_PRECISION, Method
from dvdq_eval.videos.fill import HOPELESS, Streak, fill
from dvdq_eval.videos.making import Maker
from dvdq_eval.videos.scale.run import ATTEMPTS, Queue
from dvdq_eval.videos.scale.worker import Worker
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Job, Study
from dvdq_models import DvdqError

W4A4 = Method.named("DVD-Quant", "dvd-quant", "W4A4")
W4A6 = Method.named("DVD-Quant", "dvd-quant", "W4A6")
SMOOTH = Method.named("SmoothQuant", "smoothquant", "W4A8")


def silent(*_: Any) -> None:
    """Progress that nobody watches."""


def jobs(count: int) -> list[Job]:
    return [Job(number, f"prompt {number}", number) for number in range(count)]


def test_a_worker_keeps_its_method_while_videos_of_it_wait() -> None:
    queue = Queue({FULL_PRECISION: jobs(2), W4A4: jobs(3)})
    first = queue.take(None)
    assert first is not None
    assert (first.method, first.job) == (W4A4, jobs(1)[0])
    taken = [queue.take(FULL_PRECISION) for _ in range(4)]
    assert [task.method for task in taken if task] == [FULL_PRECISION, FULL_PRECISION, W4A4, W4A4]
    assert queue.take(W4A4) is None
    assert len({(task.method.key, task.job) for task in (first, *taken) if task}) == 5


def test_a_video_whose_worker_died_comes_next_until_it_died_too_often() -> None:
    queue = Queue({W4A4: jobs(2)})
    for attempt in range(ATTEMPTS):
        task = queue.take(W4A4)
        assert task is not None
        assert task.job == jobs(1)[0]
        assert queue.put_back(task) == (attempt < ATTEMPTS - 1)
    assert len(queue) == 1


def test_what_fails_is_written_down_and_tried_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, make = Store(tmp_path, study), Maker.make

    def refuse_the_second(self: Maker, job: Job) -> None:
        if job.number == 1:
            raise RuntimeError("out of memory")
        make(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(Maker, "make", refuse_the_second)
        assert fill(store, [FULL_PRECISION], silent) == 1
    folder = store.method(FULL_PRECISION)
    failure = folder.failure(study.jobs[1])
    assert failure is not None
    assert failure.error == "RuntimeError: out of memory"
    assert [folder.has(job) for job in study.jobs] == [True, False, True]
    assert fill(store, [FULL_PRECISION], silent) == 0
    assert folder.failure(study.jobs[1]) is None
    assert all(folder.has(job) for job in study.jobs)


def test_failures_in_a_row_end_a_run(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many, refused = dataclasses.replace(study, samples=4), []

    def refuse(self: Maker, job: Job) -> None:
        refused.append(job)
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(Maker, "make", refuse)
    store = Store(tmp_path, many)
    with pytest.raises(DvdqError, match=f"got {HOPELESS} failures in a row, the last: RuntimeError: an illegal"):
        fill(store, [FULL_PRECISION], silent)
    assert len(refused) == HOPELESS < len(many.jobs)
    assert all(store.method(FULL_PRECISION).failure(job) for job in refused)


def test_a_video_between_failures_begins_the_count_anew() -> None:
    streak = Streak()
    for _ in range(2):
        for _ in range(HOPELESS - 1):
            streak.failed("out of memory")
        streak.made()
    for _ in range(HOPELESS - 1):
        streak.failed("out of memory")
    with pytest.raises(DvdqError, match="failures in a row"):
        streak.failed("out of memory")


def test_a_video_taken_over_counts_when_all_of_it_is_there(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, job = Store(tmp_path, study).method(W4A4), study.jobs[0]
    files = {f"{job.name}.json": b"{}", f"{job.name}.mkv": b"frames", f"{job.name}.npy": b"latents"}
    folder.fail(job, "an earlier try")

    def full_disk(source: Path, target: Path) -> None:
        if target.suffix == ".npy":
            raise OSError("no space left on device")
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full_disk)
        with pytest.raises(OSError, match="no space left"):
            folder.take_over(job, files)
    assert not folder.has(job)
    assert folder.failure(job) is not None
    folder.take_over(job, files)
    assert folder.has(job)
    assert folder.failure(job) is None
    assert {path.name: path.read_bytes() for path in folder.folder.iterdir()} == files


def test_numbered_devices_are_refused(study: Study, tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match="--device: expected cpu or cuda, of which a worker gets one, got cuda:1"):
        fill(Store(tmp_path, dataclasses.replace(study, device="cuda:1")), [W4A4], silent, workers=2)


def test_a_worker_with_another_model_refuses(study: Study) -> None:
    with pytest.raises(DvdqError, match="expected the files and versions of the study, got others"):
        Worker(study, "0123456789abcdef", 1)


def test_without_ray_one_process_still_works(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "dvdq_eval.videos.scale.run", raising=False)
    store = Store(tmp_path, study)
    with pytest.raises(DvdqError, match=r"expected Ray, for workers: pip install 'dvdq-eval\[scale\]'"):
        fill(store, [FULL_PRECISION], silent, workers=2)
    assert fill(store, [FULL_PRECISION], silent) == 0


def test_workers_are_refused_where_they_do_not_fit(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra [scale] is not installed")
    with pytest.raises(
        DvdqError, match="this machine: expected room for 2 workers of 1 CPU and 1 GPU each, got room for 0"
    ):
        fill(Store(tmp_path, dataclasses.replace(study, device="cuda")), [W4A4], silent, workers=2)


def test_where_rays_workers_cannot_start_is_said(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra [scale] is not installed")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "tmp"))
    with pytest.raises(DvdqError, match="RAY_TMPDIR: expected a temporary folder outside of the virtual environment"):
        fill(store, [W4A4], silent, workers=2)


def test_a_cluster_that_is_not_there_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra [scale] is not installed")

    def refuse(**_: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster at host:6379")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(DvdqError, match="--address: expected a running Ray cluster, got host:6379"):
        fill(store, [W4A4], silent, address="host:6379")


def test_workers_make_the_same_bytes_though_one_is_killed(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra [scale] is not installed")
    # Ray has its workers give way to all other processes, and tests run beside this one.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    alone, together = Store(tmp_path / "alone", study), Store(tmp_path / "together", study)
    methods = [FULL_PRECISION, W4A6, SMOOTH]
    assert fill(alone, methods, silent) == 0
    killed: list[int] = []

    def kill_the_first_to_answer(what: str, done: int, _: int) -> None:
        if not killed and what.endswith("generating") and done == 1:
            busy = [p for p in psutil.Process().children(recursive=True) if "ray::Worker.make" in "".join(p.cmdline())]
            killed.extend(process.pid for process in busy[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    assert fill(together, methods, kill_the_first_to_answer, workers=2) == 0
    assert killed
    made = contents(alone.folder)
    assert len(made) == 2 * len(methods) * len(study.jobs) + 1
    assert contents(together.folder) == made


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all videos, latents and trials of δ: all that is no record of when and where."""
    paths = [path for kind in ("*/*.mkv", "*/*.npy", "deltas/*.json") for path in folder.glob(kind)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
