"""The judges' weights: which files each dimension reads, where these come from, and what is missing here.

They are never downloaded: VBench's own code fetches what it misses, so that all is looked for before any of it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dvdq_reference.spec.errors import DvdqError

CACHE_VARIABLE = "VBENCH_CACHE_DIR"
MARKER = "PLANTED"
"""A file beside weights that are random: what they say of a video means nothing."""


@dataclass(frozen=True)
class WeightFile:
    """A file in the cache, by its path there, and the public address that VBench gives for it."""

    path: str
    address: str


_CLIP = "https://openaipublic.azureedge.net/clip/models"
_VICLIP = "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main"
_DINO = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
_BERT = "https://huggingface.co/bert-base-uncased/resolve/main"

FILES: Mapping[str, tuple[WeightFile, ...]] = MappingProxyType(
    {
        "aesthetic_quality": (
            WeightFile(
                "clip_model/ViT-L-14.pt",
                f"{_CLIP}/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
            ),
            WeightFile(
                "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
                "https://github.com/LAION-AI/aesthetic-predictor/blob/main/sa_0_4_vit_l_14_linear.pth?raw=true",
            ),
        ),
        "imaging_quality": (
            WeightFile(
                "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
                "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth",
            ),
        ),
        "overall_consistency": (
            WeightFile("ViCLIP/ViClip-InternVid-10M-FLT.pth", f"{_VICLIP}/ViClip-InternVid-10M-FLT.pth"),
            WeightFile(
                "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
                "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
            ),
        ),
        "scene": (
            WeightFile(
                "caption_model/tag2text_swin_14m.pth",
                "https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
            ),
            *(
                WeightFile(f"bert-base-uncased/{name}", f"{_BERT}/{name}")
                for name in ("config.json", "vocab.txt", "pytorch_model.bin")
            ),
        ),
        "background_consistency": (
            WeightFile(
                "clip_model/ViT-B-32.pt",
                f"{_CLIP}/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
            ),
        ),
        "subject_consistency": (
            WeightFile("dino_model/facebookresearch_dino_main/hubconf.py", "https://github.com/facebookresearch/dino"),
            WeightFile("dino_model/dino_vitbase16_pretrain.pth", _DINO),
        ),
        "dynamic_degree": (
            WeightFile(
                "raft_model/models/raft-things.pth", "https://dl.dropboxusercontent.com/s/4j4z58wuv8o0mfz/models.zip"
            ),
        ),
        "motion_smoothness": (
            WeightFile("amt_model/amt-s.pth", "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth"),
        ),
        "temporal_flickering": (),
    }
)


def weights_folder() -> Path:
    """Where VBench looks: ``VBENCH_CACHE_DIR``, or ``~/.cache/vbench``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else Path.home() / ".cache" / "vbench"


def missing_files(dimension: str, folder: Path) -> tuple[WeightFile, ...]:
    """What ``dimension`` lacks."""
    return tuple(file for file in FILES[dimension] if not (folder / file.path).is_file())


def check_weights(operation: str, dimensions: Iterable[str], folder: Path) -> None:
    """Raise one :class:`DvdqError` that names every missing file of some dimensions and its address."""
    missing = dict.fromkeys(file for dimension in dimensions for file in missing_files(dimension, folder))
    if missing:
        expected = "the judges' weights, which are not downloaded for you"
        got = f"{len(missing)} missing: " + "; ".join(f"{file.path} from {file.address}" for file in missing)
        raise DvdqError(operation, where=str(folder), expected=expected, got=got)


def is_path_check(dimension: str, folder: Path) -> bool:
    """Whether the judge's weights are random."""
    return bool(FILES[dimension]) and (folder / MARKER).exists()
