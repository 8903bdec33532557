"""A quantized transformer to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict

from dvdq_models.bit_switching import hook_of
from dvdq_models.checkpoint.checksums import write_sums
from dvdq_models.checkpoint.format import WEIGHTS, write_config
from dvdq_models.checkpoint.staging import complete_or_nothing

MAX_SHARD = "5GB"


def save(transformer: Any, folder: str | Path) -> Path:
    """Write a quantized transformer to ``folder``, which must not exist yet."""
    recipe = hook_of(transformer).recipe
    state = {name: tensor.contiguous() for name, tensor in transformer.state_dict().items()}
    with complete_or_nothing(Path(folder)) as staging:
        save_torch_state_dict(
            state, staging, filename_pattern=f"{WEIGHTS}{{suffix}}.safetensors", max_shard_size=MAX_SHARD
        )
        write_sums(staging)
        write_config(staging, json.loads(transformer.to_json_string()), recipe)
    return Path(folder)
