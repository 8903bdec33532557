"""Train the moving-shapes transformer and text encoder by flow matching on the latents of drawn clips.

``x_s = (1 - s) x + s n``; the target is ``n - x``. Noise levels follow the sampler's shift, s = 3u / (1 + 2u) with u
uniform. One prompt in ten is empty, for classifier-free guidance. The learning rate rises, stays, and falls to zero
over the last part of a wall-clock budget; the average of the weights over the last steps is what is kept.
Writes ``checkpoint.pt`` every few minutes (and resumes from it), ``transformer.csv`` and, at the end, the pipeline.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline

from dvdq_models.moving_shapes.architecture import (
    TEXT_TOKENS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)
from dvdq_models.moving_shapes.clips import draw, random_placement, split_scenes
from muon import MuonWithAdamW

PEAK_RATE = 2e-3
WARMUP_STEPS = 200
DECAY_FROM = 0.45
"""Share of the budget after which the learning rate falls."""
DROPPED_PROMPTS = 0.1
AVERAGE = 0.998
ENDS = ("shared", "relative_attention_bias", "patch_embedding", "proj_out", "scale_shift_table")
"""Embeddings and the first and last layers: not hidden matrices, so AdamW's."""


@torch.no_grad()
def encode_pool(vae: AutoencoderKLWan, scenes, size: int, rng: np.random.Generator, device: str):
    """``size`` random clips as normalised latents ``[size, 8, 5, 8, 8]`` and the index of each one's scene."""
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)
    labels = np.arange(size) % len(scenes)
    latents = []
    for start in range(0, size, 8):
        clips = np.stack([draw(scenes[i], random_placement(rng)) for i in labels[start : start + 8]])
        latents.append((vae.encode(torch.from_numpy(clips).to(device)).latent_dist.mode() - mean) / std)
    return torch.cat(latents), torch.from_numpy(labels).to(device)


class PromptEncoder(torch.nn.Module):
    """The text encoder over a fixed table of prompts, with the padding zeroed as ``WanPipeline`` does."""

    def __init__(self, tokenizer, encoder, prompts: list[str]) -> None:
        super().__init__()
        tokens = tokenizer(prompts, padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt")
        self.encoder = encoder
        self.register_buffer("ids", tokens.input_ids)
        self.register_buffer("mask", tokens.attention_mask)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[batch, TEXT_TOKENS, TEXT_WIDTH]`` of the prompts at ``index``."""
        mask = self.mask[index]
        hidden = self.encoder(self.ids[index], attention_mask=mask).last_hidden_state
        return hidden * mask[..., None]


def flow_matching_loss(transformer, latents: torch.Tensor, text: torch.Tensor, generator: torch.Generator):
    """Mean squared error of the predicted velocity at random noise levels."""
    u = torch.rand(len(latents), generator=generator).to(latents.device)
    s = 3.0 * u / (1.0 + 2.0 * u)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    mixed = torch.lerp(latents, noise, s.view(-1, 1, 1, 1, 1))
    predicted = transformer(mixed, timestep=1000.0 * s, encoder_hidden_states=text, return_dict=False)[0]
    return (predicted - (noise - latents)).square().mean()


def learning_rate(step: int, progress: float) -> float:
    """Warm-up, plateau, then a linear fall to zero."""
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, 1.0 - progress) / (1.0 - DECAY_FROM))


def save_pipeline(out: Path, vae, tokenizer, encoder, transformer) -> None:
    """The folder that ``WanPipeline.from_pretrained`` reads, in bfloat16 like the real models' files."""
    vae.register_to_config(_name_or_path="")  # diffusers would write down where it was loaded from
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder.to(torch.bfloat16),
        vae=vae.to(torch.bfloat16),
        transformer=transformer.to(torch.bfloat16),
        scheduler=build_scheduler(),
    )
    pipeline.save_pretrained(out / "pipeline")


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder with the trained vae/")
    parser.add_argument("--minutes", type=float, default=76.0, help="wall-clock budget; the schedule fits itself to it")
    parser.add_argument("--pool", type=int, default=5856, help="clips drawn and encoded once")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    training, _ = split_scenes()
    vae = AutoencoderKLWan.from_pretrained(args.out / "vae").to(args.device)
    latents, labels = encode_pool(vae, training, args.pool, np.random.default_rng(args.seed), args.device)
    print(f"encoded {len(latents)} clips", flush=True)

    tokenizer = build_tokenizer()
    empty = len(training)
    prompts = PromptEncoder(tokenizer, build_text_encoder(len(tokenizer)), [s.prompt for s in training] + [""])
    model = torch.nn.ModuleDict({"transformer": build_transformer(), "prompts": prompts}).to(args.device)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
    )
    optimizer = MuonWithAdamW(model, lr=PEAK_RATE, weight_decay=0.01, adamw=ENDS)
    step, spent, running = 0, 0.0, float("nan")
    checkpoint = args.out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        step, spent = state["step"], state["spent"]
    begun, saved = time.monotonic() - spent, time.monotonic()
    with (args.out / "transformer.csv").open("a", newline="") as file:
        log = csv.writer(file)
        if step == 0:
            log.writerow(["step", "seconds", "loss", "learning_rate"])
        while (progress := (time.monotonic() - begun) / (60.0 * args.minutes)) < 1.0:
            rate = learning_rate(step, progress)
            chosen = torch.randint(len(latents), (args.batch,), generator=generator)
            dropped = torch.rand(args.batch, generator=generator) < DROPPED_PROMPTS
            text = prompts(torch.where(dropped, empty, labels[chosen].cpu()).to(args.device))
            loss = flow_matching_loss(model["transformer"], latents[chosen], text, generator)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(rate)
            averaged.update_parameters(model)
            step += 1
            running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
            if step % 25 == 0:
                log.writerow([step, round(time.monotonic() - begun, 1), round(running, 5), f"{rate:.2e}"])
                file.flush()
            if time.monotonic() - saved > 180.0:
                state = {
                    "model": model.state_dict(),
                    "averaged": averaged.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "generator": generator.get_state(),
                    "step": step,
                    "spent": time.monotonic() - begun,
                }
                torch.save(state, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").rename(checkpoint)
                saved = time.monotonic()
    trained = averaged.module
    save_pipeline(args.out, vae, tokenizer, trained["prompts"].encoder, trained["transformer"])


if __name__ == "__main__":
    main()
