"""Train a moving-shapes transformer and its text encoders by flow matching on the latents of drawn clips.

``x_s = (1 - s) x + s n``; the target is ``n - x``. Noise levels follow the sampler's shift, s = 3u / (1 + 2u) with u
uniform. One prompt in ten is empty, for classifier-free guidance. The learning rate rises, stays, and falls to zero
over the last part of a wall-clock budget; the average of the weights over the last steps is what is kept.

HunyuanVideo's transformer takes the guidance scale w as an input: towards the end, half of each batch
learns what the average of the weights gives with classifier-free guidance, ``v_u + w (v_c - v_u)`` (Meng et al., 2023,
but teacher and pupil are one model), and the other half goes on learning ``n - x`` at w = 1.

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

from dvdq_models.moving_shapes.clips import draw, random_placement, split_scenes
from families import FAMILIES, Family
from muon import MuonWithAdamW

PEAK_RATE = 2e-3
WARMUP_STEPS = 200
DECAY_FROM = 0.45
"""Share of the budget after which the learning rate falls."""
DISTILL_FROM = 0.8
"""Share of the budget after which guidance is distilled, where it is."""
DROPPED_PROMPTS = 0.1
AVERAGE = 0.998
STRONGEST_GUIDANCE = 6.0


@torch.no_grad()
def encode_pool(family: Family, vae, scenes, size: int, rng: np.random.Generator, device: str):
    """``size`` random clips as normalised latents ``[size, 8, 5, 8, 8]`` and the index of each one's scene."""
    labels = np.arange(size) % len(scenes)
    latents = []
    for start in range(0, size, 8):
        clips = np.stack([draw(scenes[i], random_placement(rng)) for i in labels[start : start + 8]])
        latents.append(family.latents(vae, torch.from_numpy(clips).to(device)))
    return torch.cat(latents), torch.from_numpy(labels).to(device)


def velocity(model, mixed: torch.Tensor, s: torch.Tensor, prompt: torch.Tensor, guidance: torch.Tensor | None):
    """What the transformer predicts at noise level ``s`` for the prompts at index ``prompt``."""
    scale = {} if guidance is None else {"guidance": 1000.0 * guidance}
    return model["transformer"](mixed, timestep=1000.0 * s, **model["prompts"](prompt), **scale, return_dict=False)[0]


def flow_matching_loss(
    model,
    latents: torch.Tensor,
    prompt: torch.Tensor,
    generator: torch.Generator,
    *,
    embeds_guidance: bool,
    teacher,
    empty,
):
    """Mean squared error of the predicted velocity at random noise levels.

    Args:
        model: transformer and prompts.
        latents: clean ones, ``[batch, 8, 5, 8, 8]``.
        prompt: index of each one's prompt.
        generator: of noise and noise levels.
        embeds_guidance: whether the transformer takes the guidance scale.
        teacher: the model that guides the second half of the batch; None teaches the data alone.
        empty: index of the empty prompt.
    """
    u = torch.rand(len(latents), generator=generator).to(latents.device)
    s = 3.0 * u / (1.0 + 2.0 * u)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    mixed = torch.lerp(latents, noise, s.view(-1, 1, 1, 1, 1))
    target = noise - latents
    guidance = torch.ones_like(s) if embeds_guidance else None
    if teacher is not None:
        half = len(latents) // 2
        scale = 1.0 + (STRONGEST_GUIDANCE - 1.0) * torch.rand(half, generator=generator).to(latents.device)
        with torch.no_grad():
            both = torch.cat([prompt[half:], torch.full_like(prompt[half:], empty)])
            twice = mixed[half:].repeat(2, 1, 1, 1, 1), s[half:].repeat(2)
            guided, unguided = velocity(teacher, *twice, both, torch.ones_like(twice[1])).chunk(2)
        target[half:] = unguided + scale.view(-1, 1, 1, 1, 1) * (guided - unguided)
        guidance[half:] = scale
    return (velocity(model, mixed, s, prompt, guidance) - target).square().mean()


def learning_rate(step: int, progress: float) -> float:
    """Warm-up, plateau, then a linear fall to zero."""
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, 1.0 - progress) / (1.0 - DECAY_FROM))


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, default="wan")
    parser.add_argument("--out", type=Path, required=True, help="the folder with the trained vae/")
    parser.add_argument("--minutes", type=float, default=76.0, help="wall-clock budget; the schedule fits itself to it")
    parser.add_argument("--pool", type=int, default=5856, help="clips drawn and encoded once")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--bfloat16", action="store_true", help="multiply in bfloat16, on a GPU or a CPU with units for it"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    training, _ = split_scenes()
    family = FAMILIES[args.family]
    vae = family.load_vae(args.out / "vae").to(args.device)
    latents, labels = encode_pool(family, vae, training, args.pool, np.random.default_rng(args.seed), args.device)
    print(f"encoded {len(latents)} clips", flush=True)

    empty = len(training)
    prompts = family.build_prompts([scene.prompt for scene in training] + [""])
    model = torch.nn.ModuleDict({"transformer": family.build_transformer(), "prompts": prompts}).to(args.device)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE)
    )
    precision = torch.bfloat16 if args.bfloat16 else torch.float32
    optimizer = MuonWithAdamW(model, lr=PEAK_RATE, weight_decay=0.01, adamw=family.ends, precision=precision)
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
            distill = family.distills_guidance and progress > DISTILL_FROM
            with torch.autocast(args.device, torch.bfloat16, enabled=args.bfloat16):
                loss = flow_matching_loss(
                    model,
                    latents[chosen],
                    torch.where(dropped, empty, labels[chosen].cpu()).to(args.device),
                    generator,
                    embeds_guidance=family.distills_guidance,
                    teacher=averaged.module if distill else None,
                    empty=empty,
                )
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
    vae.register_to_config(_name_or_path="")  # diffusers would write down where it was loaded from
    family.pipeline(vae, trained["prompts"], trained["transformer"]).save_pretrained(args.out / "pipeline")


if __name__ == "__main__":
    main()
