"""A cast that loses a value is an error that names it, whichever way a model takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel, WanVideoToVideoPipeline
from hypothesis import given
from hypothesis import strategies as st

from dvdq_models import DvdqError, DVDQuantConfig, Recipe, load, load_pipeline, quantize, save, save_pipeline
from dvdq_models.layers.casting import cast
from dvdq_models.layers.linear import STORED
from dvdq_models.streaming import quantize_checkpoint

RECIPE = Recipe.named("minmax", "W4A8")
HALF = torch.float16
LARGE = 70000.0
MESSAGE = r"proj_out\.bias.*: expected values within torch\.float16, up to 65504, got 70000"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from([HALF, torch.float32]))
def test_what_is_not_refused_stays_finite_and_is_not_all_zero(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    plain = tensor.to(dtype)
    if plain.isfinite().all() and bool(plain.any()) == bool(tensor.any()):
        assert torch.equal(cast("test", "w", tensor, dtype), plain)
        return
    with pytest.raises(DvdqError) as error:
        cast("test", "w", tensor, dtype)
    assert abs(float(str(error.value.got).rpartition(" ")[2])) == float(f"{max(map(abs, values)):.6g}")


def test_integers_are_no_weights() -> None:
    with pytest.raises(DvdqError, match=r"w: expected floats, for torch\.float16, got torch\.int8"):
        cast("test", "w", torch.zeros(1, dtype=torch.int8), HALF)


@pytest.fixture
def large(transformer: Any, tmp_path: Path) -> Path:
    """A transformer on disk with a value that 16-bit floats of IEEE cannot hold."""
    transformer.proj_out.bias.data[3] = LARGE
    transformer.save_pretrained(tmp_path / "large")
    return tmp_path / "large"


def _load(model: Any, folder: Path) -> Any:
    return load(save(quantize(model, RECIPE), folder / "q"), dtype=HALF)


def _to(model: Any, folder: Path) -> Any:
    return quantize(model, RECIPE).to(HALF)


def _plug_in(model: Any, folder: Path) -> Any:
    config = DVDQuantConfig("minmax")
    return WanTransformer3DModel.from_pretrained(folder, quantization_config=config, torch_dtype=HALF)


def _layerwise(model: Any, folder: Path) -> Any:
    quantize(model, RECIPE).enable_layerwise_casting(HALF, torch.float32, skip_modules_pattern=("blocks",))


@pytest.mark.parametrize("way", [_load, _to, _plug_in, _layerwise])
def test_a_value_that_does_not_fit_is_named(way: Callable[..., Any], transformer: Any, large: Path) -> None:
    with pytest.raises(DvdqError, match=MESSAGE):
        way(transformer, large)


def test_a_checkpoint_that_is_mostly_half_keeps_what_does_not_fit_out(transformer: Any, tmp_path: Path) -> None:
    transformer.to(HALF)
    transformer.proj_out.bias.data = transformer.proj_out.bias.data.float().fill_(LARGE)
    transformer.save_pretrained(tmp_path / "large")
    with pytest.raises(DvdqError, match=MESSAGE):
        quantize_checkpoint(tmp_path / "large", tmp_path / "q", RECIPE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, HALF])
def test_a_cast_is_what_the_dtype_is_on_loading(transformer: Any, tmp_path: Path, dtype: torch.dtype) -> None:
    model = quantize(transformer, RECIPE)
    loaded = load(save(model, tmp_path / "q"), dtype=dtype)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for cast_again in (
        lambda: model.to(dtype),
        lambda: model.to("cpu", dtype),
        {HALF: model.half}.get(dtype, model.bfloat16),
    ):
        assert cast_again() is model
        for name, tensor in model.state_dict().items():
            expected = loaded.state_dict()[name]
            assert tensor.dtype == expected.dtype, name
            assert torch.equal(tensor, expected), name
            assert tensor.dtype == before[name].dtype or not name.endswith(STORED)
    assert model.float().proj_out.weight.dtype == torch.float32
    for wrong in (torch.int8, torch.float64):
        with pytest.raises(DvdqError, match=r"to: dtype: expected torch\.float32 or"):
            model.to(wrong)


def test_a_cast_of_what_is_elsewhere_is_refused(transformer: Any) -> None:
    model = quantize(transformer, RECIPE)
    model.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(DvdqError, match="got group offloading"):
        model.to(HALF)


@pytest.fixture
def folder(pipeline: Any, pipeline_folder: Path, tmp_path: Path) -> Path:
    return save_pipeline(pipeline_folder, quantize(pipeline.transformer, RECIPE), tmp_path / "quantized")


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning")
def test_dtypes_of_a_pipeline_are_honoured_or_refused(folder: Path) -> None:
    assert load_pipeline(folder).transformer.proj_out.weight.dtype == torch.float32
    for arguments, dtypes in (
        ({"torch_dtype": HALF}, {"transformer": HALF, "vae": HALF}),
        ({"dtype": {"transformer": HALF, "default": torch.bfloat16}}, {"transformer": HALF, "vae": torch.bfloat16}),
        ({"dtype": {"vae": torch.float32, "default": HALF}}, {"transformer": HALF, "vae": torch.float32}),
    ):
        pipe = load_pipeline(folder, **arguments)
        assert {name: getattr(pipe, name).dtype for name in dtypes} == dtypes
        assert pipe.transformer.proj_out.weight.dtype == dtypes["transformer"]
    for arguments, message in (
        ({"dtype": {"transformr": HALF}}, r"dtype: expected components \(default, .*\), got 'transformr'"),
        ({"dtype": "float16"}, "dtype: expected torch.float32 or .* got float16"),
        ({"dtype": HALF, "torch_dtype": HALF}, "expected dtype or torch_dtype, got both"),
    ):
        with pytest.raises(DvdqError, match=message):
            load_pipeline(folder, **arguments)


@pytest.mark.parametrize("target", [WanPipeline, WanVideoToVideoPipeline])
def test_from_pipe_reuses_a_quantized_transformer(pipeline: Any, target: Any) -> None:
    model = quantize(pipeline.transformer, RECIPE)
    codes = model.blocks[0].attn1.to_q.qweight.clone()
    made = target.from_pipe(pipeline, dtype=torch.bfloat16)
    assert made.transformer is model
    assert model.proj_out.weight.dtype == torch.bfloat16
    assert torch.equal(model.blocks[0].attn1.to_q.qweight, codes)


def _quantize(model: Any, folder: Path) -> Any:
    return quantize(model, RECIPE)


def _streaming(model: Any, folder: Path) -> Any:
    return quantize_checkpoint(folder, folder.parent / "q", RECIPE)


@pytest.mark.parametrize(
    ("factor", "message"), [(1e38, r"expected weights up to 8\.\d+e\+36, got 1e\+38"), (1e-43, "tells from 0")]
)
@pytest.mark.parametrize("way", [_quantize, _streaming, _plug_in])
def test_a_weight_that_a_rotation_or_a_grid_would_lose_is_named(
    way: Callable[..., Any], factor: float, message: str, transformer: Any, tmp_path: Path
) -> None:
    weight = transformer.blocks[1].ffn.net[2].weight
    weight.data = weight.data.sign() * factor
    transformer.save_pretrained(tmp_path / "full")
    with pytest.raises(DvdqError, match=rf"blocks\.1\.ffn\.net\.2.*{message}"):
        way(transformer, tmp_path / "full")
