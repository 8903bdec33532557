"""Fit TeaCache's polynomial to a bundled pipeline on prompts of the training split.

``python training/moving_shapes/fit_teacache.py wan`` writes ``moving-shapes-wan.json`` into the data of
``dvdq_models.teacache``; its provenance says what ran.
"""

from __future__ import annotations

import argparse

from dvdq_models.moving_shapes import BUNDLED
from dvdq_models.moving_shapes.clips import split_scenes
from dvdq_models.teacache import fit_coefficients, record_changes
from dvdq_models.teacache.coefficients import FOLDER

RECOGNIZED_BY = ("num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim", "in_channels")


def main() -> None:
    """Parse the arguments, record, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=BUNDLED)
    parser.add_argument("--prompts", type=int, default=16)
    args = parser.parse_args()
    bundled = BUNDLED[args.family]
    pipeline = bundled.load()
    training, _ = split_scenes()
    prompts = [scene.prompt for scene in training[:: len(training) // args.prompts][: args.prompts]]
    changes = record_changes(pipeline, prompts, **bundled.generation)
    config = {"_class_name": type(pipeline.transformer).__name__, **pipeline.transformer.config}
    name = f"moving-shapes-{args.family}"
    fitted = fit_coefficients(
        changes,
        name,
        architecture={key: config[key] for key in ("_class_name", *RECOGNIZED_BY) if key in config},
        source="training/moving_shapes/fit_teacache.py",
        generation=dict(bundled.generation),
        all_prompts=prompts,
    )
    fitted.save(FOLDER / f"{name}.json")
    print(fitted)


if __name__ == "__main__":
    main()
