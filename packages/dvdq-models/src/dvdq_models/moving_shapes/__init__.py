"""The bundled pipeline: a small trained text-to-video model of Wan's own classes, and the world it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline

FOLDER = Path(__file__).parent / "pipeline"
"""The pipeline as ``WanPipeline.from_pretrained`` reads it; its model card is ``README.md`` inside."""

GENERATION: dict[str, Any] = {
    "negative_prompt": "",
    "height": 64,
    "width": 64,
    "num_frames": 17,
    "num_inference_steps": 30,
    "guidance_scale": 4.0,
    "max_sequence_length": 16,
}
"""Arguments of a call that reproduce the model card's figures."""


def load_pipeline(dtype: torch.dtype = torch.float32) -> WanPipeline:
    """The bundled pipeline in full precision, without diffusers' progress bar."""
    pipeline = WanPipeline.from_pretrained(str(FOLDER), dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
