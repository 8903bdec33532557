"""Sizes computed from a configuration, against sizes on disk and the paper's claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize, save
from dvdq_models.calibration import calibrate
from dvdq_models.checkpoint.format import WEIGHTS
from dvdq_models.cli import app
from dvdq_models.families.configurations import empty_transformer, stored_recipe
from dvdq_models.families.pipelines import transformer_configs
from dvdq_models.inspecting.sizes import FULL_PRECISION_BYTES, describe, together

TINY: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 384}


def test_bytes_are_those_on_disk(transformer: Any, tmp_path: Path) -> None:
    recipe = Recipe.named("dvd-quant", "W4A8")
    planned = describe(transformer, recipe)
    quantize(transformer.to(torch.bfloat16), recipe)
    done = describe(transformer, recipe)
    tensors = load_file(save(transformer, tmp_path / "q") / f"{WEIGHTS}.safetensors").values()
    assert planned.bytes_after == done.bytes_after == sum(t.numel() * t.element_size() for t in tensors)
    assert planned.bytes_before == done.bytes_before
    assert planned.parameters == done.parameters


def test_a_config_alone_is_enough(tmp_path: Path) -> None:
    with torch.device("meta"):
        config = WanTransformer3DModel(num_layers=40, ffn_dim=13824, num_attention_heads=40).to_json_string()
    (tmp_path / "config.json").write_text(config)
    transformer = empty_transformer(tmp_path / "config.json")
    assert {p.device.type for p in transformer.parameters()} == {"meta"}
    report = describe(transformer, Recipe.named("dvd-quant"))
    assert report.bytes_before == FULL_PRECISION_BYTES * sum(p.numel() for p in transformer.parameters())
    # 400 linears at 4 bits and 6 bytes a row, everything else at 16 bits.
    quantized = [layer for layer in report.layers if layer.treatment == "quantize"]
    saved = sum(out * cols * 3 // 2 - 6 * out for out, cols in (layer.shape for layer in quantized))
    assert report.bytes_after == report.bytes_before - saved
    assert report.reduction > 3.7


def test_bytes_of_second_moments_are_those_of_a_calibration(
    pipeline: Any, pipeline_folder: Path, generate: Callable[..., torch.Tensor]
) -> None:
    made = calibrate(pipeline, [("a", lambda: generate(pipeline, steps=1))], moments=True)
    sizes = [matrix.nbytes for matrix in {id(matrix): matrix for matrix in made.moments.values()}.values()]
    shown = CliRunner().invoke(app, ["inspect", str(pipeline_folder), "--bits", "W4A8", "--feedback", "--json"])
    assert shown.exit_code == 0, shown.output
    report = json.loads(shown.stdout)
    assert (report["moments_bytes"], report["largest_moments_bytes"]) == (sum(sizes), max(sizes))
    assert report["recipe"]["weight"]["rounding"] == "feedback"
    said = CliRunner().invoke(app, ["inspect", str(pipeline_folder), "--bits", "W4A8", "--feedback"])
    assert "dvdq calibrate --moments writes 1.90 MB; --moments-memory from 0.59 MB" in " ".join(said.output.split())


@pytest.mark.parametrize("written", ["model_index.json", None], ids=["pipeline", "parts of one"])
def test_both_experts_are_shown_with_their_sum(tmp_path: Path, transformer: Any, written: str | None) -> None:
    experts = {"transformer": transformer, "transformer_2": WanTransformer3DModel(**(TINY | {"num_layers": 1}))}
    for name, expert in experts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(expert.to_json_string())
    if written is not None:
        (tmp_path / written).write_text(json.dumps({name: ["diffusers", "WanTransformer3DModel"] for name in experts}))
    shown = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert shown.exit_code == 0, shown.output
    report = json.loads(shown.stdout)
    recipe = Recipe.named("dvd-quant", "W4A6")
    for name, expert in experts.items():
        alone = describe(expert, recipe)
        part = report["transformers"][name]
        assert (part["parameters"], part["bytes_after"]) == (alone.parameters, alone.bytes_after)
    for key in ("parameters", "bytes_before", "bytes_after"):
        assert report[key] == sum(part[key] for part in report["transformers"].values())
    names = [layer["name"] for layer in report["layers"]]
    assert "transformer.blocks.1.attn1.to_q" in names
    assert "transformer_2.blocks.0.attn1.to_q" in names
    table = CliRunner().invoke(app, ["inspect", str(tmp_path)], terminal_width=200).output
    assert "transformer_2" in table
    assert "together" in table


def test_a_part_that_a_pipeline_leaves_out_is_not_looked_for(tmp_path: Path, transformer: Any) -> None:
    index = {"transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(transformer.to_json_string())
    assert transformer_configs(tmp_path) == {"transformer": tmp_path / "transformer/config.json"}
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"transformer_2": index["transformer"]}))
    with pytest.raises(DvdqError, match=r"transformer_2/config\.json: expected a config\.json"):
        transformer_configs(tmp_path)


def test_experts_of_different_recipes_have_no_sum(transformer: Any) -> None:
    reports = {
        name: describe(transformer, Recipe.named(recipe))
        for name, recipe in (("transformer", "dvd-quant"), ("transformer_2", "minmax"))
    }
    with pytest.raises(DvdqError, match="transformer_2: expected the recipe"):
        together(reports)


def test_a_folder_without_a_transformer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DvdqError, match=r"expected a config\.json of a transformer"):
        transformer_configs(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "AutoencoderKLWan"}))
    with pytest.raises(DvdqError, match="got AutoencoderKLWan"):
        empty_transformer(config)
    config.write_text(json.dumps({"_class_name": "WanTransformer3DModel", "rope_max_seq_len": 2**40}))
    with pytest.raises(
        DvdqError, match=r"config\.json: expected buffers of at most \d+ bytes, got \d+ bytes of rope\.freqs"
    ):
        empty_transformer(config)
    for text, expected in (("{", "expected JSON"), ("[]", "expected a JSON object, got list")):
        config.write_text(text)
        with pytest.raises(DvdqError, match=expected):
            stored_recipe(config)
