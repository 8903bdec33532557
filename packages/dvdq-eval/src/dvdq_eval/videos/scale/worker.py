"""What runs in a worker: a store of its own in a temporary folder, whose files are what it answers with."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from dvdq_eval.methods import Method
from dvdq_eval.videos.making import Maker
from dvdq_eval.videos.prepare import Pipelines, prepared_files
from dvdq_eval.videos.store import Store
from dvdq_eval.videos.study import Job, Study
from dvdq_reference.spec.errors import DvdqError

Files = Mapping[str, bytes]
"""Contents by path in a study's folder, with ``/`` on every system."""


class Failed(Exception):
    """A video that could not be made, in words."""


class Worker:
    """Makes videos of a study, one method loaded at a time.

    Args:
        study: whose folder must hold the same pipeline here.
        key: of the study where the videos are kept.
        threads: of torch on a CPU: the same for all workers, since sums in another order are other videos.
    """

    def __init__(self, study: Study, key: str, threads: int) -> None:
        torch.set_num_threads(threads)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        # A copy has none of what the other side computed from its own files.
        copy = dataclasses.replace(study)
        if copy.key != key:
            expected = "the files and versions of the study"
            raise DvdqError("generate", where=f"worker's {study.folder}", expected=expected, got="others")
        self._folder = tempfile.TemporaryDirectory(prefix="dvdq-worker-")
        self._store = Store(Path(self._folder.name), copy)
        self._pipelines = Pipelines(self._store, _silent)
        self._maker: Maker | None = None

    def prepare(self, method: Method, prepared: Files) -> Files:
        """What the method needs before its first video, ``prepared`` being there: statistics, the trials of its δ."""
        self._store.take_over(prepared)
        if method.calibrated:
            self._pipelines.calibration(moments=method.feeds_back)
        self._pipelines.tuned(method)
        return self._store.read(prepared_files(self._store, method))

    def make(self, method: Method, job: Job, prepared: Files) -> dict[str, bytes]:
        """The files of one video, and the method's own record: contents by name.

        Raises:
            Failed: the pipeline raised something, and the worker is closed.
        """
        try:
            maker = self._maker_of(method, prepared)
            maker.make(job)
        except Exception as error:
            self.close()
            raise Failed(f"{type(error).__name__}: {error}") from None
        made = list(maker.folder.folder.glob(f"{job.name}.*"))
        files = {path.name: path.read_bytes() for path in [*made, maker.folder.folder / "method.json"]}
        for path in made:
            path.unlink()
        return files

    def close(self) -> None:
        """Remove the temporary folder: a worker is ended without being asked."""
        self._folder.cleanup()

    def _maker_of(self, method: Method, prepared: Files) -> Maker:
        """The method that is loaded, or another one in its place."""
        if self._maker is None or self._maker.method != method:
            self._maker = None  # two models may not fit
            self._store.take_over(prepared)
            self._maker = Maker(self._pipelines, method)
        return self._maker


def _silent(*_: object) -> None:
    """Progress is told where the videos arrive."""
