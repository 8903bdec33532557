"""One rank of a video on several devices: ``context_parallel.py RANK RANKS PORT FOLDER`` writes ``FOLDER/RANK.pt``."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig, WanTransformer3DModel

from dvdq_models import DVDQuantConfig, quantize, trace

CONFIG: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": 32,
    "freq_dim": 16,
    "ffn_dim": 128,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}


def run(ranks: int) -> dict[str, Any]:
    """Outputs of four steps, and the decisions."""
    torch.manual_seed(0)
    model: Any = quantize(WanTransformer3DModel(**CONFIG).eval(), DVDQuantConfig("dvd-quant", "W4A6", delta=0.3).recipe)
    if ranks > 1:  # on load, which then calls enable_parallelism
        with TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=ranks))
            model = WanTransformer3DModel.from_pretrained(folder, parallel_config=config)
    generator, outputs = torch.Generator().manual_seed(1), []
    latents, text = torch.randn(1, 8, 2, 8, 8, generator=generator), torch.randn(1, 4, 32, generator=generator)
    for time in (900, 700, 400, 100):
        with torch.no_grad():
            output = model(
                hidden_states=latents, timestep=torch.tensor([time]), encoder_hidden_states=text, return_dict=False
            )[0]
        outputs.append(output)
        latents = latents - 0.2 * output
    return {"outputs": outputs, "bits": [step.bits for step in trace(model)]}


def main(rank: int, ranks: int, port: int, folder: Path) -> None:
    """Run this rank."""
    torch.set_num_threads(1)
    torch.accelerator.device_count = lambda: 1  # diffusers counts devices to choose one; the processor is one
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    torch.save(run(ranks), folder / f"{rank}.pt")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), Path(sys.argv[4]))
