"""Measure the trained pipeline and write its model card.

Over 128 unseen (prompt, seed) pairs, how often the detector finds each word of the prompt in the video; the
autoencoder's PSNR on unseen clips; the kurtosis of every quantizable weight. Writes ``card.json``, ``README.md`` and
the pictures into the pipeline's folder and ``curves.png`` beside the training's logs.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import platform
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.progress import track

from dvdq_models.families import family_of
from dvdq_models.moving_shapes import BUNDLED, Bundled
from dvdq_models.moving_shapes.clips import Scene, draw, random_placement, split_scenes
from dvdq_models.moving_shapes.detector import adherence, detect

SEEDS = (1000, 1001)
BATCH = 8
VAE_CLIPS = 64
DETECTOR_CLIPS = 512
SHEET_FRAMES = (0, 4, 8, 12, 16)


def generate(bundled: Bundled, pipeline, scenes: list[Scene], seeds: list[int]) -> np.ndarray:
    """Videos ``[n, 3, F, H, W]`` in [-1, 1], one a (scene, seed)."""
    videos = []
    for start in track(range(0, len(scenes), BATCH), description="generating"):
        part = slice(start, start + BATCH)
        options = dict(bundled.generation)
        if "negative_prompt" in options:
            options["negative_prompt"] = [options["negative_prompt"]] * len(scenes[part])
        frames = pipeline(
            prompt=[scene.prompt for scene in scenes[part]],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            output_type="np",
            **options,
        ).frames
        videos.append(np.asarray(frames).transpose(0, 4, 1, 2, 3) * 2.0 - 1.0)
    return np.concatenate(videos)


def rates(judgements: list[dict[str, bool]]) -> dict[str, float]:
    """Share of videos in which each word was right."""
    return {word: float(np.mean([judgement[word] for judgement in judgements])) for word in judgements[0]}


@torch.no_grad()
def vae_psnr(vae, scenes: tuple[Scene, ...]) -> list[float]:
    """PSNR in dB of each of ``VAE_CLIPS`` reconstructed unseen clips."""
    rng = np.random.default_rng(7)
    values = []
    for _ in track(range(VAE_CLIPS), description="reconstructing"):
        clip = torch.from_numpy(draw(scenes[rng.integers(len(scenes))], random_placement(rng)))[None]
        decoded = vae.decode(vae.encode(clip).latent_dist.mode()).sample
        values.append(10.0 * float(torch.log10(4.0 / (decoded - clip).square().mean())))
    return values


def kurtosis(weight: torch.Tensor) -> float:
    """Fourth standardised moment: 3 for a Gaussian, 1.8 for a uniform distribution."""
    weight = weight.detach().double()
    centred = weight - weight.mean()
    return float(centred.pow(4).mean() / centred.square().mean().square())


def detector_accuracy(scenes: tuple[Scene, ...]) -> dict[str, float]:
    """Share of drawn clips in which the detector finds each word."""
    rng = np.random.default_rng(11)
    chosen = [scenes[i] for i in rng.integers(len(scenes), size=DETECTOR_CLIPS)]
    return rates([adherence(draw(scene, random_placement(rng)), scene) for scene in chosen])


def contact_sheet(videos: np.ndarray, scenes: list[Scene], path: Path, *, columns: int = 2) -> None:
    """One row a video, five frames each, its prompt above."""
    scale, gap = 2, 18
    size = videos.shape[-1] * scale
    rows = -(-len(scenes) // columns)
    width = len(SHEET_FRAMES) * size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (video, scene) in enumerate(zip(videos, scenes, strict=True)):
        x, y = (i % columns) * (width + gap), (i // columns) * (size + gap)
        pen.text((x, y + 2), scene.prompt, fill="black")
        for k, frame in enumerate(SHEET_FRAMES):
            pixels = np.rint((video[:, frame].transpose(1, 2, 0) + 1.0) * 127.5).clip(0, 255).astype(np.uint8)
            sheet.paste(Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST), (x + k * size, y + gap))
    sheet.save(path, optimize=True)


def curves(logs: Path, path: Path) -> None:
    """The autoencoder's PSNR and the transformer's loss over the steps."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    plots = (
        ("vae.csv", "unseen_psnr_db", "PSNR on unseen clips, dB"),
        ("transformer.csv", "loss", "flow-matching loss"),
    )
    for axis, (file, column, label) in zip(axes, plots, strict=True):
        with (logs / file).open() as handle:
            rows = list(csv.DictReader(handle))
        axis.plot([int(row["step"]) for row in rows], [float(row[column]) for row in rows])
        axis.set(xlabel="step", ylabel=label, title=file.removesuffix(".csv"))
        axis.grid(alpha=0.3)
    axes[1].set_yscale("log")
    figure.savefig(path, dpi=110)


def model_card(card: dict) -> str:
    """The card as Markdown, every figure taken from ``card``."""
    words = ("colour", "shape", "direction", "speed", "background")
    training, parts = card["training"], card["parts"]
    lines = [
        "# Moving shapes: a small trained text-to-video pipeline",
        "",
        f"A `{card['pipeline']}` folder of the real classes at a small size, trained on procedurally drawn clips: one",
        "shape moves along a straight line over a plain background. It is a witness for quantization: small enough for",
        "a laptop, trained enough that its weights and activations are not noise.",
        "",
        *(f"- `{name}` ({part['class']}): {part['parameters'] / 1e6:.2f} M parameters" for name, part in parts.items()),
        "- **Video** 17 frames of 64x64 pixels. **Prompts** follow one pattern:",
        "  `a {colour} {shape} moves {direction} {speed} over a {background} background`.",
        f"- **Training** `training/moving_shapes`, seed 0, on {card['machine']}:",
        f"  autoencoder {training['vae_steps']} steps, transformer {training['transformer_steps']} steps",
        f"  in {training['transformer_minutes']:.0f} minutes; logs and curves lie there.",
        f"- **{card['files_mb']:.1f} MB** in bfloat16.",
        "",
        "## Measured",
        "",
        f"Over {card['videos']} videos of {card['unseen_prompts']} prompts that training never saw, with the settings",
        f'of `dvdq_models.moving_shapes.BUNDLED["{card["family"]}"].generation`, judged by the analytic detector:',
        "",
        "| | " + " | ".join(words) + " | all five |",
        "|---|" + "---|" * (len(words) + 1),
        "| generated | "
        + " | ".join(f"{card['adherence'][word]:.1%}" for word in words)
        + f" | {card['all_words']:.1%} |",
        f"| detector on {DETECTOR_CLIPS} drawn clips | "
        + " | ".join(f"{card['detector'][word]:.1%}" for word in words)
        + " | |",
        "",
        f"Autoencoder on {VAE_CLIPS} unseen clips: {card['vae_psnr_db']['mean']:.2f} dB mean PSNR,",
        f"{card['vae_psnr_db']['min']:.2f} dB at worst.",
        "",
        "Kurtosis of the quantizable weights (a Gaussian has 3, a uniform distribution 1.8): median",
        f"{card['kurtosis']['median']:.2f}, from {card['kurtosis']['min']:.2f} to {card['kurtosis']['max']:.2f}.",
        "",
        "![Unseen prompts](contact-sheet.png)",
        "",
        "<details><summary>Kurtosis of each layer</summary>",
        "",
        "| layer | kurtosis |",
        "|---|---|",
        *(f"| `{name}` | {value:.2f} |" for name, value in card["kurtosis"]["layers"].items()),
        "",
        "</details>",
        "",
        "Not for any use but testing: it knows 25 words and six colours. Apache-2.0, as the project.",
        "",
    ]
    return "\n".join(lines)


def last_row(path: Path) -> dict[str, str]:
    """The last row of a training log."""
    with path.open() as handle:
        return list(csv.DictReader(handle))[-1]


def main() -> None:
    """Parse the arguments, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=BUNDLED, default="wan")
    parser.add_argument("--pipeline", type=Path, help="another folder than the bundled one")
    parser.add_argument("--pairs", type=int, default=128)
    args = parser.parse_args()
    bundled = BUNDLED[args.family]
    if args.pipeline is not None:
        bundled = dataclasses.replace(bundled, folder=args.pipeline)
    logs = Path(__file__).parent / "logs" / args.family
    pipeline = bundled.load()
    _, unseen = split_scenes()
    pairs = [(scene, seed) for seed in SEEDS for scene in unseen][: args.pairs]
    scenes, seeds = [scene for scene, _ in pairs], [seed for _, seed in pairs]
    videos = generate(bundled, pipeline, scenes, seeds)
    judgements = [adherence(video, scene) for video, scene in zip(videos, scenes, strict=True)]
    for video, scene, judgement in zip(videos, scenes, judgements, strict=True):
        if not all(judgement.values()):
            print(scene.prompt, "→", detect(video))
    treatments = family_of(pipeline.transformer).treatments(pipeline.transformer)
    layers = {
        name: kurtosis(pipeline.transformer.get_submodule(name).weight)
        for name, treatment in treatments.items()
        if treatment != "keep"
    }
    psnr = vae_psnr(pipeline.vae, unseen)
    trained = last_row(logs / "transformer.csv")
    models = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    card = {
        "family": args.family,
        "pipeline": type(pipeline).__name__,
        "parts": {
            name: {"class": type(part).__name__, "parameters": sum(p.numel() for p in part.parameters())}
            for name, part in sorted(models.items(), key=lambda item: -sum(p.numel() for p in item[1].parameters()))
        },
        "files_mb": sum(file.stat().st_size for file in bundled.folder.rglob("*.safetensors")) / 1e6,
        "machine": f"two CPU cores ({platform.machine()})",
        "training": {
            "vae_steps": int(last_row(logs / "vae.csv")["step"]),
            "transformer_steps": int(trained["step"]),
            "transformer_minutes": float(trained["seconds"]) / 60.0,
        },
        "videos": len(pairs),
        "unseen_prompts": len(unseen),
        "adherence": rates(judgements),
        "all_words": float(np.mean([all(judgement.values()) for judgement in judgements])),
        "detector": detector_accuracy(unseen),
        "vae_psnr_db": {"mean": float(np.mean(psnr)), "min": float(np.min(psnr))},
        "kurtosis": {
            "median": float(np.median(list(layers.values()))),
            "min": min(layers.values()),
            "max": max(layers.values()),
            "layers": layers,
        },
        "generation": dict(bundled.generation),
    }
    contact_sheet(videos[:16], scenes[:16], bundled.folder / "contact-sheet.png")
    curves(logs, logs / "curves.png")
    (bundled.folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    (bundled.folder / "README.md").write_text(model_card(card))
    print(json.dumps({key: card[key] for key in ("adherence", "all_words", "detector", "vae_psnr_db")}, indent=2))


if __name__ == "__main__":
    main()
