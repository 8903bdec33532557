"""Broken inputs, made by the thousand: ``fuzzing.py SEED COUNT`` feeds them to whatever reads files of other people.

Each input is a valid one with a few changes, drawn with a seed of its own. It is read, or it is a ``DvdqError`` of one
line; anything else is a find, as are a file outside the input's folder that is opened, and a safetensors file that is
taken for another than the safetensors library takes it for. ``fuzzing.py SEED COUNT TARGET`` runs one target alone.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, quantize
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.checkpoint.lazy import open_file, open_folder
from dvdq_models.cli.console import printable
from dvdq_models.families.configurations import empty_transformer
from dvdq_models.running.prompts import read_prompts
from dvdq_models.streaming.plan import plan_transformer
from dvdq_models.streaming.source import open_source

Random = random.Random
CONFIG: dict[str, Any] = {
    "_class_name": "WanTransformer3DModel",
    "num_attention_heads": 1,
    "attention_head_dim": 16,
    "in_channels": 2,
    "out_channels": 2,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 16,
    "num_layers": 1,
    "rope_max_seq_len": 16,
}
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 7, 2**31, 2**63, 1e308, float("nan"), "", "x", "\udcff", "é\n", [], {}, [[]],
    "../outside/secret",
)  # fmt: skip
PIECES = (b"\0", b'"', b"{", b"]", b"9", b"-", b"\xff", b"1e999", b'"a":1,', b"\xef\xbb\xbf")


def bytes_of(rng: Random, data: bytes) -> bytes:
    """``data`` with a few bytes changed, left out, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(changed) + 1), rng.choice((1, 1, 2, 8, 40))
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at:at] = rng.choice(PIECES)
        else:
            del changed[at:]
    return bytes(changed)


def value_of(rng: Random, value: Any) -> Any:
    """``value`` with something in it replaced, renamed, left out or repeated, however deep."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        kind = rng.randrange(6)
        if kind == 0:
            return rest
        if kind == 1:
            return rest | {str(rng.choice(ODD)): value[key]}
        if kind == 2:
            return value | {"more": rng.choice(ODD)}
        return value | {key: value_of(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [*value[:at], *([] if rng.random() < 0.3 else [value_of(rng, value[at])]), *value[at + 1 :]]
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 8))
    return rng.choice(ODD)


def text_of(rng: Random, value: Any) -> bytes:
    """JSON, changed as a value or as bytes."""
    if rng.random() < 0.5:
        return json.dumps(value_of(rng, value)).encode()
    return bytes_of(rng, json.dumps(value).encode())


def _tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.ones(4, 2), "b": torch.zeros(3, dtype=torch.float16), "c": torch.zeros(0, 2)}


def header(rng: Random, folder: Path) -> None:
    """One safetensors file: what is taken of it is what the library takes."""
    data, path = save(_tensors(), metadata={"format": "pt"}), folder / "x.safetensors"
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.6:
        text = text_of(rng, json.loads(data[8 : 8 + length]))
        data = len(text).to_bytes(8, "little") + text + data[8 + length :]
    else:
        data = bytes_of(rng, data)
    path.write_bytes(data)
    found = {name: tensor.read() for name, tensor in open_file("fuzz", path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise AssertionError(f"taken, though the library says {error}") from error
    assert theirs.keys() == found.keys()
    for name, tensor in found.items():
        assert tensor.dtype == theirs[name].dtype
        assert tensor.shape == theirs[name].shape
        assert tensor.reshape(-1).view(torch.uint8).tolist() == theirs[name].reshape(-1).view(torch.uint8).tolist()


def shards(rng: Random, folder: Path) -> None:
    """A folder with an index and two shards."""
    names = [f"{WEIGHTS}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for i, name in enumerate(names):
        save_file({f"{i}.weight": torch.ones(2)}, folder / name)
    weight_map = {f"{i}.weight": name for i, name in enumerate(names)}
    index = {"metadata": {"total_size": 16}, "weight_map": weight_map}
    (folder / f"{WEIGHTS}.safetensors.index.json").write_bytes(text_of(rng, index))
    assert open_folder("fuzz", folder).keys() <= {"0.weight", "1.weight"}


def config(rng: Random, folder: Path) -> None:
    """A transformer's configuration."""
    (folder / "config.json").write_bytes(text_of(rng, CONFIG))
    empty_transformer(folder / "config.json")


def recipe(rng: Random, folder: Path) -> None:
    """What ``config.json`` says of a recipe."""
    values = DVDQuantConfig(rng.choice(("dvd-quant", "smoothquant")), "W4A8").to_dict()
    changed = value_of(rng, values)
    if isinstance(changed, dict):
        read = DVDQuantConfig.from_dict(changed)
        assert DVDQuantConfig.from_dict(read.to_dict()).recipe == read.recipe


def prompts(rng: Random, folder: Path) -> None:
    """A file of prompts."""
    text = "a cat walks\r\nzwei Hunde\n\n猫\u2028x\n".encode(rng.choice(("utf-8", "utf-8-sig", "utf-16", "utf-32")))
    (folder / "p.txt").write_bytes(bytes_of(rng, text))
    assert all(prompt and "\n" not in prompt for prompt in read_prompts("fuzz", folder / "p.txt"))


def pipeline(rng: Random, folder: Path) -> None:
    """A pipeline's index, over components of which one is a transformer."""
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_bytes(b'{"_class_name": "UniPCMultistepScheduler"}')
    transformer(rng, folder / "transformer", change=rng.random() < 0.3)
    index = {
        "_class_name": "WanPipeline",
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "boundary_ratio": None,
    }
    (folder / "model_index.json").write_bytes(text_of(rng, index))
    _plan(folder)


def transformer(rng: Random, folder: Path, *, change: bool = True) -> None:
    """A whole transformer: its configuration and its weights."""
    folder.mkdir(exist_ok=True)
    state = _model().state_dict()
    if change and rng.random() < 0.7:
        name = rng.choice(sorted(state))
        tensor = state.pop(name)
        kind = rng.randrange(5)
        if kind == 0:
            state[name] = tensor.reshape(-1)
        elif kind == 1:
            state[name] = tensor.to(rng.choice((torch.uint8, torch.int16, torch.float64, torch.float16)))
        elif kind == 2:
            state[name + rng.choice((".scale_weight", "_scale", "x"))] = tensor
        elif kind == 3:
            state |= {name: tensor, "blocks.0.attn1.to_q.scale": torch.ones(1)}
    save_file(state, folder / f"{WEIGHTS}.safetensors")
    text = json.dumps(CONFIG).encode()
    (folder / "config.json").write_bytes(text_of(rng, CONFIG) if change and rng.random() < 0.5 else text)
    if change:
        _plan(folder)


def _plan(folder: Path) -> None:
    for part in open_source(folder).transformers:
        plan = plan_transformer(part, Recipe.named("minmax", "W4A8"), torch.device("cpu"), "torch")
        assert {step.source.where for step in plan.steps} == {tensor.where for tensor in part.tensors.values()}


LAYER_NAMES = (
    "transformer.blocks.0.attn1.to_q",
    "diffusion_model.blocks.0.self_attn.q",
    "lora_unet_blocks_0_self_attn_q",
)
"""One layer as diffusers, Wan's own trainers and musubi call it."""


def lora(rng: Random, folder: Path) -> None:
    """An adapter's file through a pipeline: after an error the model is as it was."""
    name = rng.choice(LAYER_NAMES)
    parts = ("lora_A", "lora_B") if name.startswith("transformer") else ("lora_down", "lora_up")
    state = {f"{name}.{p}.weight": torch.ones(s) for p, s in zip(parts, ((2, 16), (16, 2)), strict=True)}
    state |= {f"{name}.alpha": torch.tensor(2.0)} if parts[0] == "lora_down" and rng.random() < 0.5 else {}
    kind = rng.randrange(6)
    key = rng.choice(sorted(state))
    if kind == 0:
        state[key.replace(rng.choice((".", "0", "attn", "q", "lora")), rng.choice(("", "9", "x", ".")), 1)] = state.pop(
            key
        )
    elif kind == 1:
        state[key] = state[key].new_full(rng.choice(((), (3,), (16, 16), (0, 16))), rng.choice((1.0, float("nan"))))
    elif kind == 2:
        state[key.rpartition(".")[0] + rng.choice((".diff", ".diff_b", ".dora_scale", ".scale"))] = torch.ones(16)
    elif kind == 3:
        state.pop(key)
    data = save(state)
    (folder / "lora.safetensors").write_bytes(bytes_of(rng, data) if kind == 4 else data)
    pipe = _pipeline()
    before = [name for name, _ in pipe.transformer.named_modules()]
    try:
        pipe.load_lora_weights(folder / "lora.safetensors", adapter_name="a", weight_name="lora.safetensors")
    except DvdqError:
        assert [name for name, _ in pipe.transformer.named_modules()] == before
        raise
    assert pipe.get_active_adapters() == ["a"]
    pipe.unload_lora_weights()
    assert [name for name, _ in pipe.transformer.named_modules()] == before


_MADE: dict[str, Any] = {}


def _model() -> Any:
    if "model" not in _MADE:
        torch.manual_seed(0)
        _MADE["model"] = WanTransformer3DModel.from_config(CONFIG).eval()
    return _MADE["model"]


def _pipeline() -> Any:
    if "pipeline" not in _MADE:
        torch.manual_seed(0)
        model = quantize(WanTransformer3DModel.from_config(CONFIG).eval(), Recipe.named("minmax"), backend="torch")
        _MADE["pipeline"] = WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=model)
    return _MADE["pipeline"]


TARGETS: dict[str, tuple[Callable[[Random, Path], None], int]] = {
    "header": (header, 50),
    "shards": (shards, 12),
    "config": (config, 6),
    "recipe": (recipe, 12),
    "prompts": (prompts, 12),
    "transformer": (transformer, 4),
    "pipeline": (pipeline, 2),
    "lora": (lora, 2),
}
"""Each with its share of a hundred inputs."""


@contextmanager
def nothing_outside(root: Path) -> Iterator[None]:
    """No file beside the inputs is opened: they can name ``../outside/secret``, and it is there."""
    (root / "outside").mkdir()
    for name in ("secret", "secret.safetensors", "secret/config.json"):
        target = root / "outside" / name.replace("/", "-")
        target.write_bytes(save(_tensors()))
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and "outside" in str(arguments[0]):
            raise AssertionError(f"opened {arguments[0]!r}")

    sys.addaudithook(watch)
    try:
        yield
    finally:
        watching = False


def run(seed: int, count: int, only: str | None = None, seconds: float = float("inf")) -> dict[str, Any]:
    """Feed ``count`` inputs, or as many as there is time for; how many were read, refused, and what was found."""
    names = [only] if only else [name for name, (_, share) in TARGETS.items() for _ in range(share)]
    outcomes, found, started = Counter[str](), [], time.monotonic()
    root = Path(tempfile.mkdtemp())
    with nothing_outside(root):
        for number in range(count):
            if time.monotonic() - started > seconds:
                break
            name, folder = names[number * 37 % len(names)], root / "input"
            folder.mkdir()
            try:
                TARGETS[name][0](Random(f"{seed} {number} {name}"), folder)
                outcomes["read"] += 1
            except DvdqError as error:
                outcomes["refused"] += 1
                if len(printable(str(error)).splitlines()) != 1:
                    found.append({"target": name, "number": number, "what": f"several lines: {error!r}"})
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                found.append({"target": name, "number": number, "what": f"{type(error).__name__}: {error}"[:300]})
            shutil.rmtree(folder)
    shutil.rmtree(root)
    return {"seed": seed, "inputs": sum(outcomes.values()) + len(found), **outcomes, "found": found}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4]), indent=1))  # noqa: T201
