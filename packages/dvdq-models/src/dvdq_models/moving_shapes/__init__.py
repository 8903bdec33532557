"""The bundled pipelines: small trained text-to-video models of the real classes, and the world they were trained on.

Each has a twin with outliers, the same function written another way, which is made of it when it is first asked for
and kept in ``$DVDQ_MODELS_CACHE``, else ``~/.cache/dvdq-models``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, HunyuanVideoPipeline, WanPipeline

from dvdq_models import __version__
from dvdq_models.files.atomic import new_folder
from dvdq_models.moving_shapes.outliers import scale_outliers_
from dvdq_reference.spec.errors import DvdqError

_CACHE = Path(os.environ.get("DVDQ_MODELS_CACHE") or Path.home() / ".cache" / "dvdq-models")
_PIPELINES = Path(__file__).parent / "pipelines"


@dataclass(frozen=True)
class Bundled:
    """One bundled pipeline, e.g. ``WAN.load()(prompt="a red circle moves left …", **WAN.generation)``.

    Attributes:
        folder: as diffusers' ``from_pretrained`` reads it; its model card is ``README.md`` inside.
        pipeline_class: that reads it.
        generation: arguments of a call that reproduce the model card's figures.
        twin_of: the pipeline that it is made of, where it is a twin; its weights are not in the package.
        outliers: how many times as large as the others a twin's outlying channels are made.
    """

    folder: Path
    pipeline_class: type[DiffusionPipeline]
    generation: Mapping[str, Any]
    twin_of: Bundled | None = None
    outliers: float = 1.0

    @property
    def original(self) -> Bundled:
        """The pipeline that was trained."""
        return self.twin_of or self

    def with_outliers(self, factor: float) -> Bundled:
        """Its twin."""
        folder = _CACHE / f"{self.folder.name}-outliers-{factor:g}-{__version__}"
        return replace(self, folder=folder, twin_of=self, outliers=factor)

    def prepare(self) -> None:
        """Make the folder of a twin, where it is not there; another process may be about it too."""
        if self.twin_of is None or self.folder.exists():
            return
        transformer = self.twin_of.load().transformer
        scale_outliers_(transformer, self.outliers)
        try:
            with new_folder(self.folder) as folder:
                shutil.copytree(self.twin_of.folder, folder, dirs_exist_ok=True)
                transformer.save_pretrained(folder / "transformer")
        except (DvdqError, OSError):
            if not self.folder.exists():
                raise

    def load(self, dtype: torch.dtype = torch.float32) -> Any:
        """The pipeline in full precision, without diffusers' progress bar."""
        self.prepare()
        pipeline = self.pipeline_class.from_pretrained(str(self.folder), dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


VIDEO = {"height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 30, "max_sequence_length": 16}
"""What all of them make."""

WAN = Bundled(_PIPELINES / "wan", WanPipeline, {**VIDEO, "negative_prompt": "", "guidance_scale": 4.0})
HUNYUAN_VIDEO = Bundled(_PIPELINES / "hunyuan_video", HunyuanVideoPipeline, {**VIDEO, "guidance_scale": 4.0})
OUTLIERS = 50.0
"""How large a twin's outliers are."""
BUNDLED = {
    "wan": WAN,
    "hunyuan-video": HUNYUAN_VIDEO,
    "wan-outliers": WAN.with_outliers(OUTLIERS),
    "hunyuan-video-outliers": HUNYUAN_VIDEO.with_outliers(OUTLIERS),
}
