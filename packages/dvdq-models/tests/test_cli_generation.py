"""``dvdq generate`` and ``dvdq tune-delta`` on both families."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import diffusers
import PIL.Image
import pytest
import torch
from diffusers import (
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    WanImageToVideoPipeline,
    WanPipeline,
)
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize, save_pipeline
from dvdq_models.cli import app, opening
from dvdq_models.cli.calls import call_arguments, default_of
from dvdq_models.families import families
from dvdq_models.families.family import OPTIONS, Call
from dvdq_models.moving_shapes import hunyuan_video
from dvdq_reference.oracle import bit_switching as oracle
from dvdq_reference.spec.recipe import BitSchedule

run = CliRunner().invoke
PROMPT = "a red circle moves left quickly over a gray background"
SMALL = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "5", "--json"]


@pytest.fixture
def hunyuan_folder(hunyuan_transformer: Any, tmp_path: Path) -> Path:
    """A random HunyuanVideo pipeline on disk whose transformer, min-max W4, follows a planned schedule."""
    tokenizer, tokenizer_2 = hunyuan_video.build_tokenizer(), hunyuan_video.build_tokenizer_2()
    widths = {
        "text_embed_dim": hunyuan_video.TEXT_WIDTH,
        "pooled_projection_dim": hunyuan_video.POOLED_WIDTH,
    }
    transformer = HunyuanVideoTransformer3DModel.from_config({**hunyuan_transformer.config, **widths}).eval()
    HunyuanVideoPipeline(
        text_encoder=hunyuan_video.build_text_encoder(tokenizer).eval(),
        tokenizer=tokenizer,
        transformer=transformer,
        vae=hunyuan_video.build_vae().eval(),
        scheduler=hunyuan_video.build_scheduler(),
        text_encoder_2=hunyuan_video.build_text_encoder_2(tokenizer_2).eval(),
        tokenizer_2=tokenizer_2,
    ).save_pretrained(tmp_path / "full")
    recipe = Recipe.named("minmax", "W4A8", schedule=BitSchedule("itp"))
    return save_pipeline(tmp_path / "full", quantize(transformer, recipe), tmp_path / "quantized")


@pytest.mark.parametrize("guidance", [[], ["--guidance", "3"]])
def test_hunyuan_video_generates_by_its_schedule(hunyuan_folder: Path, tmp_path: Path, guidance: list[str]) -> None:
    video = tmp_path / "v.mp4"
    options = ["--out", str(video), "--embedded-guidance", "4", *guidance, *SMALL]
    result = run(app, ["generate", str(hunyuan_folder), "--prompt", PROMPT, *options])
    assert result.exit_code == 0, result.output
    record = json.loads(video.with_suffix(".json").read_text())
    assert record == json.loads(result.stdout)
    assert [step["bits"] for step in record["trace"]] == oracle.itp(5, BitSchedule("itp"))


def test_tune_delta_stores_what_its_best_trial_reached(pipeline: Any, pipeline_folder: Path, tmp_path: Path) -> None:
    quantized = tmp_path / "quantized"
    save_pipeline(pipeline_folder, quantize(pipeline.transformer, Recipe.named("minmax", "W4A6")), quantized)
    tune = ["tune-delta", str(quantized), "--prompt", PROMPT, "--average", "6.5", "--trials", "2", *SMALL]
    before = (quantized / "transformer/config.json").read_text()
    result = run(app, tune)
    assert result.exit_code == 0, result.output
    assert (quantized / "transformer/config.json").read_text() == before
    tuned = json.loads(run(app, [*tune, "--write"]).stdout)
    assert tuned == {**json.loads(result.stdout), "written": True}
    assert abs(tuned["average_bits"] - 6.5) == min(abs(trial["average_bits"] - 6.5) for trial in tuned["trials"])
    assert 2 <= len(tuned["trials"]) <= 3
    inspected = json.loads(run(app, ["inspect", str(quantized), "--json"]).stdout)
    assert inspected["recipe"]["schedule"]["delta"] == tuned["delta"]
    out = ["--out", str(tmp_path / "v.mp4")]
    video = json.loads(run(app, ["generate", str(quantized), "--prompt", PROMPT, *out, *SMALL]).stdout)
    assert video["average_bits"] == tuned["average_bits"]
    table = run(app, tune[:-1], terminal_width=120)
    assert f"δ = {tuned['delta']:.6g}: {tuned['average_bits']:.2f} bits on average, not stored" in table.output


def test_tune_delta_on_several_prompts(pipeline: Any, pipeline_folder: Path, tmp_path: Path) -> None:
    quantized = tmp_path / "quantized"
    save_pipeline(pipeline_folder, quantize(pipeline.transformer, Recipe.named("minmax", "W4A6")), quantized)
    prompts = ["--prompt", PROMPT, "--prompt", PROMPT.replace("red", "blue"), "--trials", "1"]
    tuned = json.loads(run(app, ["tune-delta", str(quantized), *prompts, *SMALL]).stdout)
    assert all(len(trial["distances"]) == 2 for trial in tuned["trials"])
    assert all(trial["high"] + trial["low"] == 2 * 5 for trial in tuned["trials"])


def _pipeline(pipeline_class: Any) -> Any:
    """No more of a pipeline than its class and tokenizer."""
    pipeline = pipeline_class.__new__(pipeline_class)
    object.__setattr__(pipeline, "tokenizer", SimpleNamespace(model_max_length=16))
    return pipeline


PIPELINES = {name: call for family in families() for name, call in family.pipelines.items()}


@pytest.mark.parametrize(("name", "call"), PIPELINES.items())
def test_every_argument_of_the_table_exists(name: str, call: Call) -> None:
    assert set(call.names) <= set(OPTIONS)
    if call.needs:
        return
    pipeline = _pipeline(getattr(diffusers, name))
    for argument in call.names.values():
        default_of(pipeline, argument)


def test_what_a_pipeline_does_not_take_is_named(tmp_path: Path) -> None:
    def refused(pipeline_class: type, **options: Any) -> str:
        with pytest.raises(DvdqError) as error:
            call_arguments("generate", _pipeline(pipeline_class), PROMPT, 0, options)
        return str(error.value)

    assert "--embedded-guidance: expected an option of WanPipeline, got 6.0" in refused(
        WanPipeline, embedded_guidance=6.0
    )
    assert "--guidance-2: expected an option of HunyuanVideoPipeline" in refused(HunyuanVideoPipeline, guidance_2=3.0)
    assert "--image: expected an option of WanPipeline" in refused(WanPipeline, image=tmp_path)
    needed = "--image: expected the first frame, for WanImageToVideoPipeline, got none"
    assert needed in refused(WanImageToVideoPipeline)
    (tmp_path / "text.png").write_text("no image")
    assert "--image: expected an image file" in refused(WanImageToVideoPipeline, image=tmp_path / "text.png")
    assert "expected one of WanPipeline, " in refused(SimpleNamespace)


def test_options_become_each_pipelines_own_arguments(tmp_path: Path) -> None:
    path = tmp_path / "first.png"
    PIL.Image.new("RGB", (4, 2), (9, 9, 9)).save(path)
    options = {"frames": 9, "guidance": 2.0, "embedded_guidance": 3.0, "image": path, "height": None}
    arguments = call_arguments("generate", _pipeline(HunyuanVideoImageToVideoPipeline), PROMPT, 5, options)
    assert arguments.pop("image").size == (4, 2)
    assert arguments.pop("generator").initial_seed() == 5
    assert arguments == {"prompt": PROMPT, "num_frames": 9, "true_cfg_scale": 2.0, "guidance_scale": 3.0}
    arguments = call_arguments("generate", _pipeline(WanPipeline), PROMPT, 5, {"guidance": 2.0})
    assert arguments["max_sequence_length"] == 16
    assert arguments["guidance_scale"] == 2.0


def test_offloading_from_a_cpu_is_refused(pipeline_folder: Path) -> None:
    for command in (["generate"], ["tune-delta"]):
        result = run(app, [*command, str(pipeline_folder), "--prompt", PROMPT, "--offload", "model"])
        assert isinstance(result.exception, DvdqError)
        assert "--offload: expected a device to offload from, as --device cuda, got cpu" in str(result.exception)


@pytest.mark.parametrize(
    ("offload", "call"),
    [("none", "to"), ("model", "enable_model_cpu_offload"), ("group", "enable_group_offload")],
)
def test_offloading_is_diffusers_own(monkeypatch: pytest.MonkeyPatch, offload: str, call: str) -> None:
    pipe = Mock(spec=WanPipeline)
    loaded = Mock(return_value=pipe)
    monkeypatch.setattr(opening, "load_pipeline", loaded)
    opened = opening.open_pipeline(Path("p"), device="cuda", offload=opening.Offload(offload), backend="auto")
    assert opened is pipe
    assert loaded.call_args.kwargs["dtype"] == torch.bfloat16
    assert {name for name, *_ in pipe.method_calls} == {call, "set_progress_bar_config"}
