"""Results and videos as a demo gives them, made without running a model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel

from dvdq_eval.demo.results import Results, Video
from dvdq_eval.demo.run import METHODS, SWITCHING
from dvdq_eval.internals import ChannelPeaks, LayerError
from dvdq_eval.methods import Method
from dvdq_eval.tables.rows import Measured, summary_of
from dvdq_eval.videos.records import DeltaRecord, MethodRecord, Quality, Trial, VideoRecord
from dvdq_eval.videos.store import Store, StoredVideo
from dvdq_eval.videos.study import Study
from dvdq_models.moving_shapes import BUNDLED, WAN
from dvdq_models.moving_shapes.clips import Placement, Scene, draw
from dvdq_models.moving_shapes.wan import (
    LATENT_CHANNELS,
    TEXT_WIDTH,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_vae,
)
from dvdq_models.running.video import Frames, to_bytes
from dvdq_models.switching.schedule import StepDecision

SCENES = (
    Scene("red", "circle", "left", "quickly", "gray"),
    Scene("cyan", "triangle", "up", "slowly", "black"),
)
WORDS = ("colour", "shape", "direction", "speed", "background")
LINEARS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ffn.net.0.proj", "ffn.net.2")


@pytest.fixture(scope="session")
def tiny_transformer() -> Callable[..., WanTransformer3DModel]:
    """Makes Wan's transformer of two blocks for so many latent channels, always with the same weights."""

    def make(channels: int, width: int = 128) -> WanTransformer3DModel:
        torch.manual_seed(0)
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=width // 2,
            in_channels=channels,
            out_channels=channels,
            text_dim=TEXT_WIDTH,
            freq_dim=32,
            ffn_dim=width,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=16,
        ).eval()

    return make


TINY = {
    "negative_prompt": "",
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 4,
    "guidance_scale": 2.0,
    "max_sequence_length": 16,
}
"""How a tiny pipeline is called."""


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_transformer: Callable[..., WanTransformer3DModel]
) -> Path:
    """A pipeline's folder with an untrained transformer that every recipe fits."""
    tokenizer = build_tokenizer()
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        transformer=tiny_transformer(LATENT_CHANNELS, 256),
        vae=build_vae().eval(),
        scheduler=build_scheduler(),
    )
    path = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(str(path))
    (path / "call.json").write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def tiny_wan(tiny_folder: Path) -> Iterator[None]:
    """The bundled Wan pipeline is a tiny untrained one, for what does not ask whether a video is good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUNDLED, "wan", dataclasses.replace(WAN, folder=tiny_folder, generation=TINY))
        yield


@pytest.fixture(scope="module")
def study(tiny_wan: None) -> Study:
    """Three unseen prompts of a tiny pipeline in four steps."""
    return Study.bundled("wan", videos=3, steps=4)


@pytest.fixture(scope="module")
def store(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """An empty store of that study, which the tests of a file fill."""
    return Store(tmp_path_factory.mktemp("store"), study)


@pytest.fixture(scope="session")
def described() -> Callable[[Method], MethodRecord]:
    """What a store says of a method that nobody ran."""

    def describe(method: Method) -> MethodRecord:
        return MethodRecord(
            label=method.label,
            bits=method.bits,
            configuration=method.to_dict(),
            bytes=12_000_000 if method.recipe is None else 4_000_000,
            bytes_before=12_000_000,
            bits_per_weight=16.0 if method.recipe is None else 4.25,
            prepare_seconds=0.5,
            calibration_seconds=None,
        )

    return describe


@dataclass(frozen=True)
class Outcome:
    """What a demo's page is made from."""

    results: Results
    measured: list[Measured]
    prompts: list[str]
    videos: dict[Method, list[Frames]]


@pytest.fixture(scope="session")
def scenes() -> tuple[Scene, ...]:
    return SCENES


@pytest.fixture(scope="session")
def outcome() -> Outcome:
    return make_outcome(SCENES, steps=10)


def make_outcome(scenes: tuple[Scene, ...], steps: int) -> Outcome:
    """Drawn clips, noisier from method to method, with figures of a plausible size."""
    rng = np.random.default_rng(0)
    videos = {}
    for damage, method in enumerate(METHODS):
        clips = [draw(scene, Placement((32.0, 32.0), 10.0)).transpose(1, 2, 3, 0) for scene in scenes]
        noisy = [clip + 0.05 * damage * rng.standard_normal(clip.shape) for clip in clips]
        videos[method] = [to_bytes(np.clip((clip + 1.0) / 2.0, 0.0, 1.0).astype(np.float32)) for clip in noisy]
    prompts = [scene.prompt for scene in scenes]
    found = [_measured(damage, method, prompts, steps) for damage, method in enumerate(METHODS)]
    results = Results(
        rows=[summary_of(measured) for measured in found],
        videos=[
            Video(measured.about.label, measured.about.bits, video.record, video.quality or Quality())
            for measured in found
            for video in measured.videos
        ],
        switch=DeltaRecord(0.3, 6.0, (Trial(0.12, 6.9), Trial(0.3, 6.0))),
        layers=[
            LayerError(f"blocks.{block}.{name}", 0.012 + 0.001 * block, 0.0095 + 0.0005 * block)
            for block in range(6)
            for name in LINEARS
        ],
        activations=ChannelPeaks(
            "blocks.3.ffn.net.2", rng.exponential(1.0, 768).tolist(), rng.uniform(1.5, 2.5, 768).tolist()
        ),
        provenance={
            "dvdq": "0.1.0",
            "commit": None,
            "date": "2026-01-01T00:00:00+00:00",
            "python": "3.11.0",
            "platform": "Linux",
            "processor": "a <processor>",
            "cores": 2,
            "threads": 2,
            "device": "cpu",
            "libraries": {"torch": "2.13.0"},
            "seed": 0,
            "settings": {"num_inference_steps": steps, "negative_prompt": ""},
            "seconds": 60.0,
        },
    )
    return Outcome(results, found, prompts, videos)


def _measured(damage: int, method: Method, prompts: list[str], steps: int) -> Measured:
    """What a store would have of a method: the more damage, the farther from full precision."""
    full = damage == 0
    about = MethodRecord(
        label=method.label,
        bits=method.bits,
        configuration=method.to_dict(),
        bytes=14_000_000 if full else 4_100_000,
        bytes_before=14_000_000,
        bits_per_weight=16.0 if full else 4.25,
        prepare_seconds=1.5,
        calibration_seconds=None,
    )
    videos = []
    for number, prompt in enumerate(prompts):
        words = dict.fromkeys(WORDS, damage < len(METHODS) - 1 or not number % 2)
        quality = Quality(
            psnr_db=None if full else 30.0 - 2.0 * damage,
            ssim=None if full else 1.0 - 0.05 * damage,
            latent_error=None if full else 0.1 * damage,
            words=words,
        )
        record = VideoRecord(
            prompt=prompt,
            seed=number,
            seconds=5.0,
            pass_seconds=4.0 if full else 2.5,
            average_bits=None if full else 6.0,
            trace=_trace(steps) if method == SWITCHING else None,
            commit=None,
        )
        videos.append(StoredVideo(record, quality, Path(f"{number}.mkv")))
    return Measured(method.key, about, videos)


def _trace(steps: int) -> tuple[StepDecision, ...]:
    bits = [8 if step < 2 or step % 3 == 0 else 4 for step in range(steps)]
    return tuple(
        StepDecision(step, width, None if step < 2 else 0.1 * (step % 3 + 1), "a reason", None if step == 0 else 0.1)
        for step, width in enumerate(bits)
    )
