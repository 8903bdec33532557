"""One schedule over each whole video, in every pipeline of both families; no layer needs to be quantized for that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)

from dvdq_models import DvdqError, Recipe, trace
from dvdq_models.families.pipelines import TRANSFORMERS
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.moving_shapes.hunyuan_video import build_vae as build_hunyuan_vae
from dvdq_models.moving_shapes.wan import build_scheduler, build_text_encoder, build_tokenizer, build_vae
from dvdq_models.switching.denoising_loop import DenoisingLoop
from dvdq_models.switching.hook import attach, follow, hook_of, set_delta, set_ends
from dvdq_models.teacache import enable_teacache, teacache_trace
from dvdq_reference.oracle import bit_switching as oracle
from dvdq_reference.spec.recipe import BitSchedule

WAN: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}
HUNYUAN: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_layers": 1,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 4, 4),
}
STEPS = 5
SIZE = {"height": 16, "width": 16, "num_frames": 5, "output_type": "latent"}
IMAGE = PIL.Image.new("RGB", (16, 16), (200, 30, 30))


def _plain_vae() -> AutoencoderKLWan:
    """Without patches, which VACE's masks know nothing of."""
    return AutoencoderKLWan(
        base_dim=3,
        z_dim=8,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )


def _wan(pipeline_class: Any = WanPipeline, *, experts: int = 1, **changes: Any) -> Any:
    model_class = WanVACETransformer3DModel if pipeline_class is WanVACEPipeline else WanTransformer3DModel
    models = [model_class(**{**WAN, **changes}).eval() for _ in range(experts)]
    optional = {"image_encoder": None, "image_processor": None} if pipeline_class is WanImageToVideoPipeline else {}
    vae = _plain_vae() if pipeline_class is WanVACEPipeline else build_vae()
    return pipeline_class(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval(),
        scheduler=build_scheduler(),
        transformer=models[0],
        transformer_2=models[1] if experts == 2 else None,
        boundary_ratio=0.8 if experts == 2 else None,
        **optional,
    )


def _hunyuan(pipeline_class: Any = HunyuanVideoPipeline, **changes: Any) -> Any:
    optional = {"image_processor": None} if pipeline_class is HunyuanVideoImageToVideoPipeline else {}
    return pipeline_class(
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        vae=build_hunyuan_vae().eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=HunyuanVideoTransformer3DModel(**{**HUNYUAN, **changes}).eval(),
        **optional,
    )


BUILD: dict[str, Callable[[], Any]] = {
    "wan": _wan,
    "wan, two experts": lambda: _wan(experts=2),
    "wan image": lambda: _wan(WanImageToVideoPipeline, in_channels=8 + 4 + 8),
    "wan image, two experts": lambda: _wan(WanImageToVideoPipeline, experts=2, in_channels=8 + 4 + 8),
    "wan vace": lambda: _wan(WanVACEPipeline, vace_layers=[0], vace_in_channels=2 * 8 + 8 * 8),
    "hunyuan": _hunyuan,
    "hunyuan without embedded guidance": lambda: _hunyuan(guidance_embeds=False),
    "hunyuan image": lambda: _hunyuan(
        HunyuanVideoImageToVideoPipeline, in_channels=2 * 8 + 1, image_condition_type="latent_concat"
    ),
    "hunyuan image in place of a frame": lambda: _hunyuan(
        HunyuanVideoImageToVideoPipeline, image_condition_type="token_replace"
    ),
}


@pytest.fixture
def build() -> Callable[[str], Any]:
    """A pipeline by its name, seeded."""

    def make(name: str) -> Any:
        torch.manual_seed(0)
        pipeline = BUILD[name]()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return make


def _call(pipeline: Any, *, passes: int = 1, prompts: int = 1, steps: int = STEPS, **more: Any) -> torch.Tensor:
    """The latents of a video, with classifier-free guidance if there are two passes a step."""
    seeded = torch.Generator().manual_seed(0)
    wan = type(pipeline).__name__.startswith("Wan")
    image = {"image": IMAGE if wan else [IMAGE] * prompts} if "Image" in type(pipeline).__name__ else {}
    inputs: dict[str, Any] = {}
    for prefix in ("", "negative_")[:passes]:
        inputs[f"{prefix}prompt_embeds"] = torch.randn(prompts, 4, 16, generator=seeded)
        if not wan:
            inputs[f"{prefix}pooled_prompt_embeds"] = torch.randn(prompts, 8, generator=seeded)
            inputs[f"{prefix}prompt_attention_mask"] = torch.ones(prompts, 4)
    guidance = {"guidance_scale" if wan else "true_cfg_scale": 4.0 if passes == 2 else 1.0}
    latents = pipeline(
        num_inference_steps=steps, generator=seeded, **SIZE, **image, **inputs, **guidance, **more
    ).frames
    assert isinstance(latents, torch.Tensor)
    return latents


def _schedule(pipeline: Any, schedule: BitSchedule, *, followed: bool = True) -> list[int]:
    """Put a schedule on a pipeline; the widths that its passes then run at."""
    seen: list[int] = []
    for name in TRANSFORMERS:
        transformer = getattr(pipeline, name, None)
        if transformer is not None:
            state = ActivationState(0)
            recipe = Recipe.named("dvd-quant", "W4A8", schedule=schedule)
            attach(transformer, recipe, state)
            transformer.proj_out.register_forward_pre_hook(lambda _m, _i, state=state: seen.append(state.bits))
    if followed:
        follow(pipeline)
    return seen


@pytest.mark.parametrize(("passes", "prompts"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("name", BUILD)
def test_every_pipeline_runs_a_planned_schedule(build: Any, name: str, passes: int, prompts: int) -> None:
    if (name, prompts) == ("wan vace", 2):
        prompts = 1  # All that this pipeline takes.
    pipeline, schedule = build(name), BitSchedule("sba", seed=3)
    seen = _schedule(pipeline, schedule)
    for steps in (STEPS, STEPS + 1):
        seen.clear()
        _call(pipeline, passes=passes, prompts=prompts, steps=steps)
        planned = oracle.sba(steps, schedule)
        assert [d.bits for d in trace(pipeline.transformer)] == planned
        assert [d.step for d in trace(pipeline.transformer)] == list(range(steps))
        assert seen == [bits for bits in planned for _ in range(passes)]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("name", BUILD)
def test_every_pipeline_runs_its_last_steps_high(build: Any, name: str, passes: int) -> None:
    pipeline, schedule = build(name), BitSchedule("delta", delta=1e9, last_high=2)
    seen = _schedule(pipeline, schedule)
    for steps in (STEPS, 2):
        seen.clear()
        _call(pipeline, passes=passes, steps=steps)
        decisions = trace(pipeline.transformer)
        assert [d.finishing for d in decisions] == [step >= steps - 2 for step in range(steps)]
        assert [d.bits for d in decisions] == oracle.delta_guided([d.distance for d in decisions[1:]], schedule)
        assert seen == [d.bits for d in decisions for _ in range(passes)]


@pytest.mark.parametrize("name", BUILD)
def test_the_switch_needs_no_pipeline_except_for_two_experts(build: Any, name: str) -> None:
    pipeline, schedule = build(name), BitSchedule("delta", delta=0.3)
    seen = _schedule(pipeline, schedule, followed="two experts" in name)
    first = _call(pipeline, passes=2)
    decisions = trace(pipeline.transformer)
    distances = [d.distance for d in decisions[1:]]
    assert decisions[0].distance is None
    assert None not in distances
    assert [d.bits for d in decisions] == oracle.delta_guided(distances, schedule)
    assert seen == [d.bits for d in decisions for _ in range(2)]
    assert torch.equal(_call(pipeline, passes=2), first)
    assert trace(pipeline.transformer) == decisions


def test_two_experts_share_one_schedule(build: Any) -> None:
    pipeline = build("wan, two experts")
    _schedule(pipeline, BitSchedule("delta", delta=0.3))
    calls = dict.fromkeys(TRANSFORMERS, 0)
    outputs = []
    for name in TRANSFORMERS:

        def record(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
            calls[name] += 1
            outputs.append(output[0])

        getattr(pipeline, name).register_forward_hook(record)
    _call(pipeline)
    assert min(calls.values()) > 0
    assert sum(calls.values()) == STEPS
    decisions = trace(pipeline.transformer)
    assert decisions == trace(pipeline.transformer_2)
    between = calls["transformer"]
    assert decisions[between].distance == oracle_distance(outputs[between], outputs[between - 1])


def oracle_distance(current: torch.Tensor, previous: torch.Tensor) -> Any:
    """The distance in float64; the hook sums as many float32 terms twice, each of which may be off by a rounding."""
    rounding = torch.finfo(torch.float32).eps
    return pytest.approx(oracle.relative_change(current.numpy(), previous.numpy()), rel=2 * current.numel() * rounding)


def test_experts_with_different_schedules_are_refused(build: Any) -> None:
    pipeline = build("wan, two experts")
    _schedule(pipeline, BitSchedule("delta", delta=0.3))
    hook_of(pipeline.transformer_2).recipe = Recipe.named("dvd-quant", "W4A8")
    with pytest.raises(DvdqError, match="transformer_2: expected the other expert's"):
        follow(pipeline)


def test_a_scheduler_of_second_order_runs_timesteps_twice(build: Any) -> None:
    pipeline, schedule = build("wan image"), BitSchedule("sba")
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    for followed in (True, False):
        kind = schedule if followed else BitSchedule("delta", delta=0.3)
        seen = _schedule(pipeline, kind, followed=followed)
        _call(pipeline)
        assert len(trace(pipeline.transformer)) == len(seen) == 2 * STEPS - 1
        if followed:
            assert seen == oracle.sba(2 * STEPS - 1, schedule)


@pytest.mark.parametrize("name", ["wan", "wan image", "hunyuan", "hunyuan image", "wan image, two experts"])
@pytest.mark.parametrize("followed", [True, False])
@pytest.mark.parametrize("at", [0, 3])
def test_a_run_given_up_is_forgotten(build: Any, name: str, followed: bool, at: int) -> None:
    followed = followed or "two experts" in name
    pipeline, schedule = build(name), BitSchedule("delta", delta=0.3)
    _schedule(pipeline, schedule, followed=followed)
    fresh = _call(pipeline), trace(pipeline.transformer)

    def give_up(pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == at:
            raise KeyboardInterrupt
        return values

    def stop(pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipeline._interrupt = step == at
        return values

    with pytest.raises(KeyboardInterrupt):
        _call(pipeline, callback_on_step_end=give_up)
    assert len(trace(pipeline.transformer)) == at + 1
    again = _call(pipeline), trace(pipeline.transformer)
    assert torch.equal(again[0], fresh[0])
    assert again[1] == fresh[1]
    _call(pipeline, callback_on_step_end=stop)
    assert len(trace(pipeline.transformer)) == at + 1
    assert torch.equal(_call(pipeline), fresh[0])
    assert trace(pipeline.transformer) == fresh[1]


def test_an_exception_inside_a_pass_ends_its_video(build: Any) -> None:
    pipeline = build("hunyuan")
    _schedule(pipeline, BitSchedule("delta", delta=0.3), followed=False)
    fresh = _call(pipeline), trace(pipeline.transformer)
    fail = pipeline.transformer.proj_out.register_forward_pre_hook(lambda _m, _i: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _call(pipeline)
    fail.remove()
    assert torch.equal(_call(pipeline), fresh[0])
    assert trace(pipeline.transformer) == fresh[1]


def test_a_video_begins_where_time_goes_back() -> None:
    """Also to the middle of the last one, as where a given video is made anew."""
    loop, begins = DenoisingLoop(), []
    for time in (900, 700, 700, 500, 800, 600):
        begins.append(loop.enter(None, torch.zeros(1), torch.tensor([time])).new_video)
        loop.leave()
    assert begins == [True, False, False, False, True, False]


def test_two_pipelines_take_turns_step_by_step(build: Any) -> None:
    """Each waits after every step for the other's: state that they shared would mix."""
    names, schedules = ("wan", "hunyuan"), (BitSchedule("delta", delta=0.3), BitSchedule("sba"))
    alone = []
    pipelines = [build(name) for name in names]
    for pipeline, schedule in zip(pipelines, schedules, strict=True):
        _schedule(pipeline, schedule)
        alone.append((_call(pipeline, passes=2), trace(pipeline.transformer)))
    barrier = threading.Barrier(2, timeout=60)

    def wait(_pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        barrier.wait()
        return values

    results: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        results[number] = _call(pipelines[number], passes=2, callback_on_step_end=wait)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = [(results[number], trace(pipelines[number].transformer)) for number in range(2)]
    for (latents, decisions), (expected, before) in zip(together, alone, strict=True):
        assert torch.equal(latents, expected)
        assert decisions == before


def test_a_planned_schedule_says_what_it_needs(build: Any) -> None:
    pipeline = build("hunyuan")
    _schedule(pipeline, BitSchedule("stp"), followed=False)
    with pytest.raises(DvdqError, match=r"stp: expected the number of steps, .*follow\(pipeline\).*, got None"):
        _call(pipeline)
    follow(pipeline)
    _call(pipeline)


def test_a_scheduler_tells_nothing_about_another_loop(build: Any) -> None:
    """The transformer of a followed pipeline, called by hand: its steps are counted, not the idle scheduler's."""
    pipeline = build("wan")
    _schedule(pipeline, BitSchedule("constant"))
    _call(pipeline)
    with torch.no_grad():
        for time in (900, 500, 100):
            pipeline.transformer(
                hidden_states=torch.randn(1, 8, 2, 2, 2),
                timestep=torch.tensor([time]),
                encoder_hidden_states=torch.randn(1, 4, 16),
            )
    assert [d.step for d in trace(pipeline.transformer)] == [0, 1, 2]


def test_another_delta_holds_from_the_next_video_on(build: Any) -> None:
    pipeline = build("wan, two experts")
    _schedule(pipeline, BitSchedule("delta", delta=0.0))
    set_delta(pipeline, 1e9)
    _call(pipeline)
    assert [d.bits for d in trace(pipeline.transformer)] == [8, 8, *[4] * (STEPS - 2)]
    assert {hook_of(getattr(pipeline, name)).recipe.schedule.delta for name in TRANSFORMERS} == {1e9}
    _schedule(pipeline, BitSchedule("stp"))
    with pytest.raises(DvdqError, match="transformer: expected a delta schedule, got stp"):
        set_delta(pipeline, 0.1)
    with pytest.raises(DvdqError, match="expected a pipeline with a quantized transformer, got WanPipeline"):
        set_delta(build("wan"), 0.1)


def test_other_ends_hold_from_the_next_video_on(build: Any) -> None:
    pipeline = build("wan, two experts")
    seen = _schedule(pipeline, BitSchedule("constant", low=4, high=4))
    set_ends(pipeline, last_high=1)
    _call(pipeline)
    assert seen == [4, 4, 4, 4, 8]
    set_ends(pipeline, first_high=2)
    seen.clear()
    _call(pipeline)
    assert seen == [8, 8, 4, 4, 8]
    kept = {hook_of(getattr(pipeline, name)).recipe.schedule for name in TRANSFORMERS}
    assert kept == {BitSchedule("low", first_high=2, last_high=1)}
    _schedule(pipeline, BitSchedule("constant", low=8, high=8))
    with pytest.raises(
        DvdqError, match="last_high: expected a schedule with steps below 8 bits, got 8 bits throughout"
    ):
        set_ends(pipeline, last_high=1)


VIDEO = [PIL.Image.new("RGB", (16, 16), (20 * i, 60, 90)) for i in range(5)]


@pytest.mark.parametrize(("strength", "steps"), [(0.5, 4), (0.8, 6), (1.0, 8)])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_video_to_start_from_has_the_steps_that_run(strength: float, steps: int, passes: int) -> None:
    torch.manual_seed(0)
    pipeline = WanVideoToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_plain_vae().eval(),
        scheduler=build_scheduler(),
        transformer=WanTransformer3DModel(**WAN).eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    schedule = BitSchedule("abs")
    seen = _schedule(pipeline, schedule)
    enable_teacache(pipeline.transformer, 0.0, coefficients="wan2.1-t2v-14b", pipeline=pipeline)
    for _ in range(2):
        seen.clear()
        pipeline(
            video=VIDEO,
            strength=strength,
            height=16,
            width=16,
            num_inference_steps=8,
            guidance_scale=4.0 if passes == 2 else 1.0,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
            prompt_embeds=torch.zeros(1, 4, 16),
            negative_prompt_embeds=torch.ones(1, 4, 16),
        )
        planned = oracle.abs_(steps, schedule)
        assert [d.bits for d in trace(pipeline.transformer)] == planned
        assert [d.step for d in trace(pipeline.transformer)] == list(range(steps))
        assert seen == [bits for bits in planned for _ in range(passes)]
        cached = teacache_trace(pipeline.transformer)
        assert [d.step for d in cached if d.reason == "last step"] == [steps - 1] * passes


@pytest.mark.parametrize(("frames", "window"), [(9, 9), (17, 9)], ids=["whole", "window"])
@pytest.mark.parametrize("ar_step", [0, 2])
@pytest.mark.parametrize("kind", ["delta", "stp"])
def test_frames_with_timesteps_of_their_own_are_one_video(frames: int, window: int, ar_step: int, kind: str) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    pipeline = SkyReelsV2DiffusionForcingPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        vae=_plain_vae().eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0),
        transformer=SkyReelsV2Transformer3DModel(**{**WAN, "text_dim": 128}).eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    schedule = BitSchedule("delta", delta=0.3) if kind == "delta" else BitSchedule("stp")
    seen = _schedule(pipeline, schedule)
    begins: list[int] = []

    def count(pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        begins.append(step)
        return values

    pipeline(
        prompt="a red circle moves left slowly",
        height=16,
        width=16,
        num_frames=frames,
        base_num_frames=window,
        overlap_history=1 if frames > window else None,
        num_inference_steps=6,
        ar_step=ar_step,
        causal_block_size=1,
        guidance_scale=5.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
        callback_on_step_end=count,
    )
    sections = [i for i, step in enumerate(begins) if step == 0]
    last = begins[sections[-1] :]
    assert len(sections) == (1 if frames == window else 2)
    decisions = trace(pipeline.transformer)
    assert [d.step for d in decisions] == last
    assert seen[::2][-len(last) :] == [d.bits for d in decisions]
    if kind == "stp":
        assert [d.bits for d in decisions] == oracle.stp(len(last), schedule)
