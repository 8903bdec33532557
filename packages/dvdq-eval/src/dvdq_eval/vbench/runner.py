"""What VBench's own Python runs: its real code over videos and prompts that a request names, without the network.

``python -I runner.py REQUEST.json``; its environment knows nothing of dvdq. Standard output has JSON alone, an object a
line, in which what is not a number is null. ``{"operation": "describe"}`` is answered by ``{"versions": …, "prompts":
[VBench's own list]}``. The other request::

    {"operation": "score", "dimension": …, "device": "cpu", "threads": 1, "cache": folder of the weights,
     "out": an empty folder, "entries": [{"prompt_en": …, "dimension": [it], "video_list": [one path], …}, …]}

is answered by ``{"done": n}`` when n videos are scored, from 0 when the judge is loaded, and at last by
``{"score": VBench's aggregate, "videos": {path: VBench's value}}``.
"""

from __future__ import annotations

import importlib
import importlib.util
import ipaddress
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

_FETCHERS = ("curl", "git", "wget")


class DownloadRefused(RuntimeError):
    """VBench tried to fetch what the folder of weights lacks."""


def refuse_downloads(event: str, arguments: Sequence[Any]) -> None:
    """An audit hook: no program that fetches is started, and no machine but this one is spoken to."""
    if event == "subprocess.Popen":
        command = arguments[1]
        words = command.split() if isinstance(command, str | bytes) else list(command)
        if words and Path(os.fsdecode(words[0])).stem in _FETCHERS:
            raise DownloadRefused("no downloads here: " + " ".join(os.fsdecode(word) for word in words))
    elif event == "os.system":
        raise DownloadRefused(f"no shell here: {os.fsdecode(arguments[0])}")
    elif event in ("socket.connect", "socket.sendto") and not is_local(arguments[1]):
        raise DownloadRefused(f"no downloads here: a connection to {arguments[1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not is_local((arguments[0],)):
        raise DownloadRefused(f"no downloads here: the address of {arguments[0]}")


def is_local(address: Any) -> bool:
    """Whether a socket's address is of this machine: a path, or a host that is no other's."""
    if not isinstance(address, tuple) or address[0] in (None, "", b"", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(os.fsdecode(address[0])).is_loopback
    except ValueError:
        return False


def prepare(cache: str, threads: int) -> None:
    """Make VBench's modules importable: offline, its weights in ``cache``, torchvision beside a torch for CPUs.

    The weights are pickles of before torch restricted them, and DINO's are a folder of code: a cache is trusted.
    """
    sys.addaudithook(refuse_downloads)
    os.environ.update(
        VBENCH_CACHE_DIR=cache, HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1"
    )
    os.makedirs(cache, exist_ok=True)
    os.chdir(cache)  # Tag2Text asks for "bert-base-uncased", which transformers also takes for a folder.
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    import_torchvision(torch)


def import_torchvision(torch: Any) -> None:
    """torchvision from PyPI is built for CUDA: beside a torch for CPUs its operators are missing when it names them."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.dvdq_operators = library  # what it defines lives as long as it does
        importlib.import_module("torchvision")


def score(request: Mapping[str, Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """One dimension by ``VBench.evaluate``; only its list of videos and its progress bar are ours."""
    prepare(request["cache"], request["threads"])
    dimension, out = request["dimension"], Path(request["out"])
    torch = importlib.import_module("torch")
    # DINO's own code asks torch's hub for its weights, which looks where earlier downloads are.
    (out / "checkpoints").symlink_to(Path(request["cache"]) / "dino_model", target_is_directory=True)
    torch.hub.set_dir(str(out))
    info = out / "videos.json"
    info.write_text(json.dumps(request["entries"]), encoding="utf-8")

    def count(items: Sequence[Any], **_: Any) -> Iterator[Any]:
        for done, item in enumerate(items):
            tell({"done": done})
            yield item
        tell({"done": len(items)})

    module: Any = importlib.import_module(f"vbench.{dimension}")
    module.tqdm = count
    vbench = importlib.import_module("vbench").VBench(request["device"], "", str(out))
    vbench.build_full_info_json = lambda *_, **__: str(info)
    # Three judges leave it to their caller; scene's would keep 16 GB of one video for a backward pass.
    with torch.no_grad():
        vbench.evaluate(str(out), dimension, dimension_list=[dimension], local=True)
    aggregate, videos = json.loads((out / f"{dimension}_eval_results.json").read_text(encoding="utf-8"))[dimension]
    values = {video["video_path"]: number(video["video_results"]) for video in videos}
    tell({"score": number(aggregate), "videos": values})


def number(value: Any) -> float | None:
    """A finite number, or nothing; whether a video moves is 1 or 0."""
    return float(value) if math.isfinite(value) else None


def describe(tell: Callable[[dict[str, Any]], None]) -> None:
    """What is installed and VBench's own prompts, without importing either."""
    found = importlib.util.find_spec("vbench")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"{sys.executable} has no vbench")
    prompts = json.loads(Path(found.origin).with_name("VBench_full_info.json").read_text(encoding="utf-8"))
    versions = {name: metadata.version(name) for name in ("vbench", "torch", "torchvision")}
    tell({"versions": versions | {"python": platform.python_version()}, "prompts": prompts})


def main() -> None:
    """Answer the request."""
    # Whatever a library prints, in Python or below it, goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)

        def tell(values: dict[str, Any]) -> None:
            stdout.write(json.dumps(values, allow_nan=False) + "\n")
            stdout.flush()

        request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        if request["operation"] == "describe":
            describe(tell)
        else:
            score(request, tell)


if __name__ == "__main__":
    main()
