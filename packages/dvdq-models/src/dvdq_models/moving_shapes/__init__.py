"""The bundled pipelines: small trained text-to-video models of the real classes, and the world they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, HunyuanVideoPipeline, WanPipeline

_PIPELINES = Path(__file__).parent / "pipelines"


@dataclass(frozen=True)
class Bundled:
    """One bundled pipeline, e.g. ``WAN.load()(prompt="a red circle moves left …", **WAN.generation)``.

    Attributes:
        folder: as diffusers' ``from_pretrained`` reads it; its model card is ``README.md`` inside.
        pipeline_class: that reads it.
        generation: arguments of a call that reproduce the model card's figures.
    """

    folder: Path
    pipeline_class: type[DiffusionPipeline]
    generation: Mapping[str, Any]

    def load(self, dtype: torch.dtype = torch.float32) -> Any:
        """The pipeline in full precision, without diffusers' progress bar."""
        pipeline = self.pipeline_class.from_pretrained(str(self.folder), dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


VIDEO = {"height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 30, "max_sequence_length": 16}
"""What all of them make."""

WAN = Bundled(_PIPELINES / "wan", WanPipeline, {**VIDEO, "negative_prompt": "", "guidance_scale": 4.0})
HUNYUAN_VIDEO = Bundled(_PIPELINES / "hunyuan_video", HunyuanVideoPipeline, {**VIDEO, "guidance_scale": 4.0})
BUNDLED = {"wan": WAN, "hunyuan-video": HUNYUAN_VIDEO}
