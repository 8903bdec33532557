"""Train a moving-shapes autoencoder on freshly drawn clips.

What it learns is its family's ``vae_loss``. Most steps see 9x32x32 crops, a
thirteenth of the work of whole clips; the last third sees whole clips, so that the causal caches are trained at
their full length. Writes ``vae/``, ``vae.csv`` and the latents' scale into ``vae/config.json``.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch

from dvdq_models.moving_shapes.clips import SIZE, draw, random_placement, split_scenes
from families import FAMILIES
from muon import MuonWithAdamW

PEAK_RATE = 3e-3
CROP_FRAMES, CROP_SIZE = 9, 32


def sample_clips(rng: np.random.Generator, count: int, scenes, *, crop: bool) -> torch.Tensor:
    """``count`` random clips of ``scenes``, whole or cropped: float32 ``[count, 3, F, H, W]``."""
    clips = []
    for _ in range(count):
        clip = draw(scenes[rng.integers(len(scenes))], random_placement(rng))
        if crop:
            frame = rng.integers(clip.shape[1] - CROP_FRAMES + 1)
            y, x = rng.integers(SIZE - CROP_SIZE + 1, size=2)
            clip = clip[:, frame : frame + CROP_FRAMES, y : y + CROP_SIZE, x : x + CROP_SIZE]
        clips.append(clip)
    return torch.from_numpy(np.stack(clips))


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for values in [-1, 1]."""
    return 10.0 * math.log10(4.0 / mse)


@torch.no_grad()
def evaluate(vae, clips: torch.Tensor) -> float:
    """Mean PSNR of the reconstruction of each clip from its latents' mode."""
    decoded = torch.cat([vae.decode(vae.encode(c[None]).latent_dist.mode()).sample for c in clips])
    return float(np.mean([psnr(float((d - c).square().mean())) for d, c in zip(decoded, clips, strict=True)]))


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="wan")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=14.0, help="wall-clock budget; the schedule fits itself to it")
    parser.add_argument("--start", type=Path, help="a trained vae/ to go on from, on whole clips")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    training, unseen = split_scenes()
    held_out = sample_clips(np.random.default_rng(args.seed + 1), 8, unseen, crop=False).to(args.device)
    family = FAMILIES[args.family]
    vae = (family.load_vae(args.start) if args.start else family.build_vae()).to(args.device)
    optimizer = MuonWithAdamW(vae, lr=PEAK_RATE, weight_decay=1e-4)
    start, step, progress = time.monotonic(), 0, 0.0
    with (args.out / "vae.csv").open("w", newline="") as file:
        log = csv.writer(file)
        while progress < 1.0:
            whole = args.start is not None or progress > 0.67
            peak = PEAK_RATE if args.start is None else PEAK_RATE / 3.0
            rate = peak * min(1.0, (step + 1) / 20, (1.0 - progress) / 0.6)
            clips = sample_clips(rng, 4 if whole else 16, training, crop=not whole).to(args.device)
            loss, parts = family.vae_loss(vae, clips)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
            optimizer.step(rate)
            step += 1
            progress = (time.monotonic() - start) / (60.0 * args.minutes)
            if step % 50 == 0 or progress >= 1.0:
                if step == 50:
                    log.writerow(["step", "seconds", *parts, "unseen_psnr_db"])
                row = [step, round(time.monotonic() - start, 1), *parts.values(), evaluate(vae, held_out)]
                log.writerow(row)
                file.flush()
                print(*row, flush=True)
    statistics = sample_clips(np.random.default_rng(args.seed + 2), 256, training, crop=False)
    family.record_statistics(vae.cpu(), statistics)
    vae.save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
