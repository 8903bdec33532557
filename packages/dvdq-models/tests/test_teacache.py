"""TeaCache inside real diffusers pipelines of both families, and its rule and its fit by themselves."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FirstBlockCacheConfig,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    WanVACETransformer3DModel,
)
from torch._dynamo.testing import CompileCounter
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize, trace
from dvdq_models.cli import app
from dvdq_models.switching.hook import follow, relative_change
from dvdq_models.teacache import (
    Changes,
    Coefficients,
    disable_teacache,
    enable_teacache,
    fit_coefficients,
    names,
    record_changes,
    teacache_trace,
)
from dvdq_models.teacache.coefficients import coefficients_of
from dvdq_models.teacache.decision import Accumulator
from dvdq_reference.spec.recipe import BitSchedule

STEPS = 6
CALL = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": STEPS, "max_sequence_length": 16}
LINE = (0.0, 0.0, 0.0, 1.0, 0.0)
"""The polynomial that is the distance itself."""


def line(signal: Any = "timestep", warm_up: int = 1) -> Coefficients:
    return Coefficients("line", LINE, signal, warm_up)


@pytest.fixture(scope="module")
def _hunyuan_vae() -> Any:
    torch.manual_seed(2)
    return AutoencoderKLHunyuanVideo(
        latent_channels=8,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=1,
    ).eval()


@pytest.fixture
def hunyuan_pipeline(hunyuan_transformer: Any, _hunyuan_vae: Any) -> Any:
    pipe = HunyuanVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=hunyuan_transformer,
        vae=_hunyuan_vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate_hunyuan(pipeline: Any, steps: int = STEPS, guidance: float = 1.0, prompts: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)

    def text(prefix: str) -> dict[str, torch.Tensor]:
        return {
            f"{prefix}prompt_embeds": torch.randn(prompts, 6, 32, generator=generator),
            f"{prefix}pooled_prompt_embeds": torch.randn(prompts, 16, generator=generator),
            f"{prefix}prompt_attention_mask": torch.ones(prompts, 6, dtype=torch.bool),
        }

    latents = pipeline(
        **text(""),
        **text("negative_"),
        true_cfg_scale=guidance,
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=steps,
        output_type="latent",
        generator=generator,
    ).frames
    assert isinstance(latents, torch.Tensor)
    return latents


Generate = Callable[..., torch.Tensor]


@pytest.fixture(params=["wan", "hunyuan"])
def family(request: pytest.FixtureRequest, generate: Generate) -> tuple[Any, Generate, Coefficients]:
    """A pipeline, how it is called, and coefficients of its family."""
    if request.param == "wan":
        return request.getfixturevalue("pipeline"), generate, line("timestep")
    return request.getfixturevalue("hunyuan_pipeline"), generate_hunyuan, line("modulated-input")


def count_calls(module: Any) -> list[int]:
    """A list that grows with each call of what ``module`` holds; a skipped block calls none of its parts."""
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(len(calls)))
    return calls


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_threshold_zero_changes_no_bit(family: tuple[Any, Generate, Coefficients], guidance: float) -> None:
    pipe, run, coefficients = family
    expected = run(pipe, STEPS, guidance)
    below_zero = dataclasses.replace(coefficients, values=(0.0, 0.0, 0.0, 0.0, -1.0))
    for each in (coefficients, below_zero):
        enable_teacache(pipe.transformer, 0.0, coefficients=each, pipeline=pipe)
        assert torch.equal(run(pipe, STEPS, guidance), expected)
        assert not any(decision.reused for decision in teacache_trace(pipe.transformer))


@pytest.mark.parametrize(("guidance", "passes"), [(1.0, ["cond"]), (4.0, ["cond", "uncond"])])
def test_every_step_between_the_first_and_the_last_is_reused(
    family: tuple[Any, Generate, Coefficients], guidance: float, passes: list[str]
) -> None:
    pipe, run, coefficients = family
    blocks = [m for n, m in pipe.transformer.named_modules() if n.endswith(".0") and n.count(".") == 1]
    calls = [count_calls(block.attn1 if hasattr(block, "attn1") else block.attn) for block in blocks]
    enable_teacache(pipe.transformer, 1e9, coefficients=coefficients, pipeline=pipe)
    run(pipe, STEPS, guidance)
    expected = [(s, name, 0 < s < STEPS - 1) for s in range(STEPS) for name in passes]
    assert [(d.step, d.name, d.reused) for d in teacache_trace(pipe.transformer)] == expected
    assert [len(seen) for seen in calls] == [2 * len(passes)] * len(blocks)


def test_a_reused_pass_adds_what_its_own_last_computed_pass_added(pipeline: Any, generate: Generate) -> None:
    """Both passes at once: what goes into the blocks and what comes out, against one computed by hand."""
    entered: list[torch.Tensor] = []
    left: list[torch.Tensor] = []
    pipeline.transformer.patch_embedding.register_forward_hook(
        lambda _m, _i, out: entered.append(out.flatten(2).transpose(1, 2).clone())
    )
    pipeline.transformer.norm_out.register_forward_pre_hook(lambda _m, inputs: left.append(inputs[0].clone()))
    enable_teacache(pipeline.transformer, 1e9, coefficients=line())
    generate(pipeline, 3, 4.0)
    for name in range(2):
        first, middle = name, 2 + name
        assert torch.equal(left[middle], entered[middle] + (left[first] - entered[first]))
    assert not torch.equal(left[0] - entered[0], left[1] - entered[1])


def test_the_decisions_are_the_sums_of_the_rescaled_changes(family: tuple[Any, Generate, Coefficients]) -> None:
    pipe, run, coefficients = family
    enable_teacache(pipe.transformer, 0.0, coefficients=coefficients, pipeline=pipe)
    run(pipe, 8, 1.0)
    distances = [d.distance for d in teacache_trace(pipe.transformer)]
    assert distances[0] is None
    between = [d for d in distances[1:-1] if d is not None]
    threshold = 1.5 * float(np.median(between))
    enable_teacache(pipe.transformer, threshold, coefficients=coefficients, pipeline=pipe)
    run(pipe, 8, 1.0)
    decisions = teacache_trace(pipe.transformer)
    total, reused = 0.0, []
    for decision in decisions[1:-1]:
        assert decision.distance is not None
        total += decision.distance
        assert decision.accumulated == total
        reused.append(total < threshold)
        total = total if reused[-1] else 0.0
    assert [d.reused for d in decisions] == [False, *reused, False]
    assert True in reused
    assert False in reused


def test_the_signals_are_what_they_are_called(pipeline: Any, generate: Generate, hunyuan_pipeline: Any) -> None:
    def distances(pipe: Any, run: Generate, signal: Any) -> list[float | None]:
        enable_teacache(pipe.transformer, 0.0, coefficients=line(signal), pipeline=pipe)
        run(pipe, 2, 1.0)
        return [d.distance for d in teacache_trace(pipe.transformer)]

    seen: list[Any] = []
    pipeline.transformer.condition_embedder.register_forward_hook(lambda _m, _i, out: seen.append(out))
    for index, signal in enumerate(("timestep", "timestep-projection")):
        seen.clear()
        assert distances(pipeline, generate, signal) == [None, relative_change(seen[1][index], seen[0][index])]
    normed: list[Any] = []
    hunyuan_pipeline.transformer.transformer_blocks[0].norm1.register_forward_hook(
        lambda _m, _i, out: normed.append(out[0])
    )
    measured = distances(hunyuan_pipeline, generate_hunyuan, "modulated-input")
    assert measured == [None, relative_change(normed[-1], normed[0])]


def test_five_steps_are_kept(pipeline: Any, generate: Generate) -> None:
    enable_teacache(pipeline.transformer, 1e9, coefficients=line("timestep-projection", warm_up=5))
    generate(pipeline, 8)
    reused = {d.step for d in teacache_trace(pipeline.transformer) if d.reused}
    assert reused == {5, 6}


def test_a_new_video_starts_afresh_also_after_one_that_broke_off(family: tuple[Any, Generate, Coefficients]) -> None:
    pipe, run, coefficients = family
    enable_teacache(pipe.transformer, 1e9, coefficients=coefficients, pipeline=pipe)
    expected, decisions = run(pipe), teacache_trace(pipe.transformer)
    assert torch.equal(run(pipe), expected)
    handle = pipe.transformer.proj_out.register_forward_pre_hook(_break_off_at(3))
    with pytest.raises(KeyboardInterrupt):
        run(pipe)
    handle.remove()
    assert torch.equal(run(pipe), expected)
    assert teacache_trace(pipe.transformer) == decisions
    run(pipe, prompts=2)
    assert [d.reused for d in teacache_trace(pipe.transformer)] == [d.reused for d in decisions]


def _break_off_at(call: int) -> Callable[..., None]:
    calls: list[None] = []

    def hook(*_: Any) -> None:
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt

    return hook


def test_two_pipelines_do_not_share_state(pipeline: Any, generate: Generate) -> None:
    other = copy.copy(pipeline)
    other.transformer = copy.deepcopy(pipeline.transformer)
    plain = generate(other)
    enable_teacache(pipeline.transformer, 1e9, coefficients=line())
    assert not torch.equal(generate(pipeline), plain)
    assert torch.equal(generate(other), plain)
    enable_teacache(other.transformer, 0.0, coefficients=line())
    generate(other)
    assert sum(d.reused for d in teacache_trace(pipeline.transformer)) == 2 * (STEPS - 2)
    assert not any(d.reused for d in teacache_trace(other.transformer))


def test_disabled_it_leaves_nothing_behind(family: tuple[Any, Generate, Coefficients]) -> None:
    pipe, run, coefficients = family
    expected = run(pipe)
    enable_teacache(pipe.transformer, 1e9, coefficients=coefficients, pipeline=pipe)
    enable_teacache(pipe.transformer, 1e9, coefficients=coefficients, pipeline=pipe)
    assert not torch.equal(run(pipe), expected)
    disable_teacache(pipe.transformer)
    assert torch.equal(run(pipe), expected)
    with pytest.raises(DvdqError, match="a transformer with TeaCache enabled"):
        teacache_trace(pipe.transformer)


def test_a_skipped_step_leaves_the_sum_of_the_bit_schedule(family: tuple[Any, Generate, Coefficients]) -> None:
    """DESIGN: the sum stays as it is, and the trace says so; what was computed decides as if nothing was in between."""
    pipe, run, coefficients = family
    schedule = BitSchedule("delta", delta=0.12, last_high=2)
    quantize(pipe.transformer, Recipe.named("dvd-quant", "W4A6", schedule=schedule))
    follow(pipe)
    enable_teacache(pipe.transformer, 1e9, coefficients=coefficients, pipeline=pipe)
    run(pipe, STEPS, 4.0)
    bits = trace(pipe.transformer)
    reused = [d.reused for d in teacache_trace(pipe.transformer) if d.name == "cond"]
    assert [d.skipped for d in bits] == reused == [False, *[True] * (STEPS - 2), False]
    assert {d.reason for d in bits if d.skipped} == {"skipped: TeaCache"}
    assert [d.finishing for d in bits] == [*[False] * (STEPS - 2), True, True]
    assert bits[-1].reason == "one of the last 2 steps"
    assert all(d.distance is None for d in bits[:-1])
    assert bits[-1].distance is not None


def test_threshold_zero_changes_no_bit_of_a_quantized_model(family: tuple[Any, Generate, Coefficients]) -> None:
    pipe, run, coefficients = family
    quantize(pipe.transformer, Recipe.named("dvd-quant", "W4A6"))
    expected, bits = run(pipe, STEPS, 4.0), trace(pipe.transformer)
    enable_teacache(pipe.transformer, 0.0, coefficients=coefficients, pipeline=pipe)
    assert torch.equal(run(pipe, STEPS, 4.0), expected)
    assert trace(pipe.transformer) == bits


def test_experts_are_judged_each_by_itself(pipeline: Any, generate: Generate) -> None:
    """Wan 2.2 A14B: two transformers, one after the other, in one loop whose last step the second one has."""
    pipeline.register_modules(transformer_2=copy.deepcopy(pipeline.transformer))
    pipeline.register_to_config(boundary_ratio=0.9)
    for expert in (pipeline.transformer, pipeline.transformer_2):
        enable_teacache(expert, 1e9, coefficients=line())
    generate(pipeline, STEPS, 1.0)
    first, second = (
        [(d.step, d.reused) for d in teacache_trace(expert)]
        for expert in (pipeline.transformer, pipeline.transformer_2)
    )
    assert [step for step, _ in first + second] == list(range(STEPS))
    assert len(second) >= 3
    assert [reused for _, reused in first] == [False, *[True] * (len(first) - 1)]
    assert [reused for _, reused in second] == [False, *[True] * (len(second) - 2), False]


def test_compiled_blocks_give_one_graph_whether_they_run_or_not(pipeline: Any, generate: Generate) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    enable_teacache(pipeline.transformer, 1e9, coefficients=line())
    expected = generate(pipeline)
    pipeline.transformer.compile_repeated_blocks(backend=counter)
    assert torch.equal(generate(pipeline), expected)
    assert counter.frame_count == 1


@pytest.mark.parametrize("condition", ["latent_concat", "token_replace"])
def test_image_conditions_of_hunyuan_video(hunyuan_transformer: Any, condition: str) -> None:
    torch.manual_seed(0)
    config = {**hunyuan_transformer.config, "image_condition_type": condition}
    transformer = HunyuanVideoTransformer3DModel.from_config(config).eval()
    seen: list[Any] = []
    transformer.transformer_blocks[0].norm1.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    enable_teacache(transformer, 0.0, coefficients=line("modulated-input"))
    inputs = {
        "hidden_states": torch.randn(1, 8, 2, 8, 8),
        "encoder_hidden_states": torch.randn(1, 6, 32),
        "encoder_attention_mask": torch.ones(1, 6),
        "pooled_projections": torch.randn(1, 16),
        "guidance": torch.tensor([6000.0]),
    }
    with torch.no_grad():
        for step, timestep in enumerate((900.0, 500.0)):
            with transformer.cache_context("cond", step_index=step, num_inference_steps=2):
                transformer(timestep=torch.tensor([timestep]), **inputs)
    assert torch.equal(seen[0], seen[1])
    assert teacache_trace(transformer)[1].distance == relative_change(seen[2], seen[0])


def test_what_is_refused(pipeline: Any, generate: Generate, hunyuan_pipeline: Any) -> None:
    transformer = pipeline.transformer
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(DvdqError, match="threshold: expected a finite number, 0 or more"):
            enable_teacache(transformer, bad, coefficients=line())
    with pytest.raises(DvdqError, match="signal timestep or timestep-projection, got modulated-input"):
        enable_teacache(transformer, 0.1, coefficients="hunyuan-video")
    with pytest.raises(DvdqError, match=r"expected .*wan2.1-t2v-14b.*, got 'wan'"):
        enable_teacache(transformer, 0.1, coefficients="wan")
    with pytest.raises(DvdqError, match=r"hunyuan-video.* or what fit_coefficients gives"):
        enable_teacache(transformer, 0.1)
    tiny = {"num_attention_heads": 1, "attention_head_dim": 12, "num_layers": 1, "ffn_dim": 8, "vace_layers": [0]}
    with pytest.raises(DvdqError, match="got WanVACETransformer3DModel"):
        enable_teacache(WanVACETransformer3DModel(**tiny), 0.1, coefficients=line())
    enable_teacache(hunyuan_pipeline.transformer, 0.1, coefficients="hunyuan-video")
    with pytest.raises(DvdqError, match="pipeline: expected the pipeline"):
        generate_hunyuan(hunyuan_pipeline)
    transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(DvdqError, match="no other cache"):
        enable_teacache(transformer, 0.1, coefficients=line())


def test_the_rule_alone() -> None:
    half = dataclasses.replace(line(), values=(0.0, 0.0, 0.0, 0.5, 0.0))
    rule = Accumulator(0.25, half)
    distances = (None, 0.25, 0.25, float("inf"), 0.25)
    decisions = [rule.decide(step, "cond", d, last=step == 4) for step, d in enumerate(distances)]
    assert [d.reused for d in decisions] == [False, True, False, False, False]
    assert [d.accumulated for d in decisions] == [None, 0.125, 0.25, float("inf"), None]


def config_of(name: str) -> Any:
    """A stand-in for a model that is known by its configuration alone."""
    architecture = dict(Coefficients.named(name).architecture or {})
    model = torch.nn.Module()
    model.__class__ = type(architecture.pop("_class_name"), (torch.nn.Module,), {})
    model.config = architecture  # type: ignore[assignment]
    return model


def test_coefficients_are_found_where_one_model_has_the_architecture() -> None:
    for name in ("wan2.1-t2v-1.3b", "hunyuan-video", "moving-shapes-wan"):
        assert coefficients_of(config_of(name)).name == name
    with pytest.raises(DvdqError, match=r"one of wan2\.1-t2v-14b, Wan2\.2-T2V-A14B, which look alike"):
        coefficients_of(config_of("wan2.1-t2v-14b"))
    with pytest.raises(DvdqError, match=r"one of wan2\.1-i2v-14b-480p, wan2\.1-i2v-14b-720p"):
        coefficients_of(config_of("wan2.1-i2v-14b-720p"))


@pytest.mark.parametrize("name", names())
def test_every_file_says_whence_it_is_and_comes_back(name: str, tmp_path: Path) -> None:
    coefficients = Coefficients.named(name)
    assert coefficients.name == name
    assert coefficients.provenance["source"]
    assert coefficients.warm_up == (5 if name.endswith("-ret") else 1)
    coefficients.save(tmp_path / "copy.json")
    assert Coefficients.load(tmp_path / "copy.json") == coefficients


def test_coefficients_that_are_none() -> None:
    with pytest.raises(DvdqError, match="values: expected 5 finite numbers"):
        Coefficients("short", (1.0, 2.0), "timestep")
    with pytest.raises(DvdqError, match="warm_up: expected at least 1 step"):
        line(warm_up=0)


def test_a_fit_finds_the_polynomial_that_made_the_changes() -> None:
    values = (3.0, -2.0, 0.5, 1.0, 0.25)
    x = np.linspace(0.0, 1.0, 9)
    fitted = fit_coefficients(Changes(x, np.polyval(values, x), "timestep", 1, 1, 10), "known", source="a test")
    # Least squares in double precision, conditioned by the powers of nine points in [0, 1]: below 10^4.
    assert fitted.values == pytest.approx(values, abs=1e4 * float(np.finfo(np.float64).eps) * max(values))
    assert fitted.provenance["pairs"] == 9
    assert fitted.provenance["source"] == "a test"
    with pytest.raises(DvdqError, match="at least 5 different changes, got 4"):
        fit_coefficients(Changes(x[:4], x[:4], "timestep", 1, 1, 6), "few")


def test_recording_pairs_the_signal_with_the_output(pipeline: Any) -> None:
    outputs: list[torch.Tensor] = []
    handle = pipeline.transformer.register_forward_hook(lambda _m, _i, out: outputs.append(out[0].clone()))
    prompts = ["a red circle moves left quickly over a gray background"] * 2
    changes = record_changes(pipeline, prompts, guidance_scale=1.0, **CALL)
    handle.remove()
    assert (changes.kind, changes.prompts, changes.steps) == ("timestep", 2, STEPS)
    assert len(changes.signal) == 2 * (STEPS - 2)
    # Of each video neither the first step, which has none before it, nor the last, which is never skipped.
    expected = [
        relative_change(outputs[video * STEPS + step], outputs[video * STEPS + step - 1])
        for video in range(2)
        for step in range(1, STEPS - 1)
    ]
    assert changes.output.tolist() == expected
    with pytest.raises(DvdqError, match="TeaCache enabled"):
        teacache_trace(pipeline.transformer)


def test_the_command_writes_the_decisions(pipeline_folder: Path, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    call = ["generate", str(pipeline_folder), "--prompt", "a red circle", "--out", str(video), "--steps", "3"]
    call += ["--height", "16", "--width", "16", "--frames", "5", "--json"]
    chosen = ["--teacache-coefficients", "wan2.1-t2v-1.3b"]
    result = CliRunner().invoke(app, [*call, "--teacache", "1e9", *chosen])
    assert result.exit_code == 0, result.output
    record = json.loads(video.with_suffix(".json").read_text())
    assert record == json.loads(result.stdout)
    assert [d["reused"] for d in record["teacache"] if d["name"] == "cond"] == [False, True, False]
    refused = CliRunner().invoke(app, [*call, *chosen, "--overwrite"])
    assert isinstance(refused.exception, DvdqError)
    assert "expected --teacache with it" in str(refused.exception)
