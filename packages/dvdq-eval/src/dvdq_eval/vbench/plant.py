"""Random weights of the right shapes where VBench looks for them, written by VBench's own Python.

``python -I plant.py REQUEST.json`` with ``{"cache": an empty folder, "threads": 1}``. They let the real code of every
dimension run without a download; what it then says of a video means nothing. What is not fixed by VBench's code is
small: the towers of CLIP, and DINO, whose file is code. Of the rest a matrix is a window over few numbers, W[i, j] =
v[i + j], so that a gigabyte takes kilobytes on disk.
"""

from __future__ import annotations

import importlib
import json
import runpy
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

SEED = 0
VOCABULARY = 30_522
"""Of BERT: Tag2Text's layers have as many rows, and two more."""

DINO = '''"""In place of DINO's repository: 768 random features of the average colours of 64 tiles."""
import torch

dependencies = ["torch"]


def dino_vitb16(**options):
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 768))
    url = "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"
    model.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return model
'''


def windows(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors with every matrix in place of a random one, of deviation 1/√in, that shares its numbers' storage."""
    planted = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            numbers = torch.randn(sum(tensor.shape) - tensor.ndim + 1) / tensor[0].numel() ** 0.5
            planted[name] = numbers.as_strided(tensor.shape, (1,) * tensor.ndim)
        else:
            planted[name] = tensor.clone()  # norms and counters stay as they begin
    return planted


def save(path: Path, values: Any) -> None:
    """As torch writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(values, path)


def plant_clip(cache: Path) -> None:
    """Two towers of one layer, as the TorchScript archives that CLIP's weights are; and the vocabulary of its texts."""
    clip: Any = importlib.import_module("clip.model")
    for name, width in (("ViT-B-32", 512), ("ViT-L-14", 768)):
        model = clip.CLIP(width, 224, 1, 64, 32, 8, 16, 64, 1, 1).eval()
        path = cache / "clip_model" / f"{name}.pt"
        path.parent.mkdir(exist_ok=True)
        example = (torch.rand(1, 3, 224, 224), torch.zeros(1, 8, dtype=torch.long))
        torch.jit.trace(model, example, check_trace=False).save(str(path))
    (cache / "ViCLIP").mkdir()
    words = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(Path(clip.__file__).with_name(words), cache / "ViCLIP" / words)


def plant_aesthetic(cache: Path) -> None:
    """The head on CLIP's features."""
    head = nn.Linear(768, 1)
    save(cache / "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth", head.state_dict())


def plant_musiq(cache: Path) -> None:
    """Imaging quality."""
    model = importlib.import_module("pyiqa.archs.musiq_arch").MUSIQ(pretrained=False)
    save(cache / "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth", windows(model.state_dict()))


def plant_dino(cache: Path) -> None:
    """Subject consistency."""
    folder = cache / "dino_model"
    code = folder / "facebookresearch_dino_main" / "hubconf.py"
    code.parent.mkdir(parents=True)
    code.write_text(DINO, encoding="utf-8")
    save(folder / "dino_vitbase16_pretrain.pth", {"2.weight": torch.randn(768, 192), "2.bias": torch.randn(768)})


def plant_amt(cache: Path) -> None:
    """Motion smoothness."""
    build: Any = importlib.import_module("vbench.third_party.amt.utils.build_utils")
    conf: Any = importlib.import_module("omegaconf").OmegaConf
    shapes = Path(build.__file__).parents[1] / "cfgs" / "AMT-S.yaml"
    model = build.build_from_cfg(conf.load(shapes).network)
    save(cache / "amt_model/amt-s.pth", {"state_dict": windows(model.state_dict())})


def plant_raft(cache: Path) -> None:
    """Dynamic degree; its own weights were saved by several GPUs, which put a word before every name."""
    arguments = importlib.import_module("easydict").EasyDict(small=False, mixed_precision=False, alternate_corr=False)
    model = importlib.import_module("vbench.third_party.RAFT.core.raft").RAFT(arguments)
    state = {f"module.{name}": tensor for name, tensor in windows(model.state_dict()).items()}
    save(cache / "raft_model/models/raft-things.pth", state)


def plant_viclip(cache: Path) -> None:
    """Overall consistency."""
    model = importlib.import_module("vbench.third_party.ViCLIP.viclip").ViCLIP(pretrain="")
    save(cache / "ViCLIP/ViClip-InternVid-10M-FLT.pth", {"model": windows(model.state_dict())})


def plant_tag2text(cache: Path) -> None:
    """Scene."""
    bert: Any = importlib.import_module("transformers.models.bert")
    folder = cache / "bert-base-uncased"
    config = bert.BertConfig()
    config.save_pretrained(str(folder))
    save(folder / "pytorch_model.bin", windows(bert.BertModel(config).state_dict()))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of"]
    words += [f"word{number}" for number in range(VOCABULARY - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    build = importlib.import_module("vbench.third_party.tag2Text.tag2text").Tag2Text_Caption
    save(
        cache / "caption_model/tag2text_swin_14m.pth",
        {"model": windows(build(image_size=384, vit="swin_b").state_dict())},
    )


PLANT: tuple[Callable[[Path], None], ...] = (
    plant_clip,
    plant_aesthetic,
    plant_musiq,
    plant_dino,
    plant_amt,
    plant_raft,
    plant_viclip,
    plant_tag2text,
)

if __name__ == "__main__":
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    runpy.run_path(str(Path(__file__).with_name("runner.py")))["prepare"](request["cache"], request["threads"])
    torch.manual_seed(SEED)
    for plant in PLANT:
        plant(Path(request["cache"]))
