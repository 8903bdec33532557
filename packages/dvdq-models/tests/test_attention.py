"""Attention backends of diffusers on quantized transformers: chosen, run, read back, refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from typer.testing import CliRunner

from dvdq_models import DvdqError, Recipe, quantize
from dvdq_models.cli import app
from dvdq_models.running.attention import attention_of, set_attention


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the backends that ran, in order."""
    ran: list[str] = []

    def recording(name: str, run: Any) -> Any:
        def recorded(**kwargs: Any) -> Any:
            ran.append(name)
            return run(**kwargs)

        return recorded

    for backend in (AttentionBackendName.NATIVE, AttentionBackendName._NATIVE_MATH):
        run = _AttentionBackendRegistry._backends[backend]
        monkeypatch.setitem(_AttentionBackendRegistry._backends, backend, recording(backend.value, run))
    return ran


@pytest.mark.parametrize(("model", "run"), [("transformer", "call"), ("hunyuan_transformer", "call_hunyuan")])
def test_the_chosen_backend_runs_and_is_told(
    model: str, run: str, calls: list[str], request: pytest.FixtureRequest
) -> None:
    transformer, forward = request.getfixturevalue(model), request.getfixturevalue(run)
    quantize(transformer, Recipe.named("dvd-quant", "W4A8"))
    other = copy.deepcopy(transformer)
    forward(transformer)
    assert attention_of(transformer) == "native"
    native = list(calls)
    assert set(native) == {"native"}
    set_attention(transformer, "_native_math")
    assert attention_of(transformer) == "_native_math"
    calls.clear()
    forward(transformer)
    assert calls == ["_native_math"] * len(native)
    assert attention_of(other) == "native"


def test_a_mixed_model_tells_all(transformer: Any) -> None:
    set_attention(transformer, "_native_math")
    transformer.blocks[0].attn1.processor._attention_backend = None
    assert attention_of(transformer) == "_native_math, native"


def test_an_unknown_name_is_told_the_known(transformer: Any) -> None:
    with pytest.raises(DvdqError, match=r"attention: sagittarius: expected one of flash, .*sage.*xformers"):
        set_attention(transformer, "sagittarius")


def test_a_missing_package_is_named_and_nothing_changes(transformer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_dispatch, "_CAN_USE_SAGE_ATTN", False)
    with pytest.raises(DvdqError, match=r"attention: sage: .*sageattention>="):
        set_attention(transformer, "sage")
    assert attention_of(transformer) == "native"


def test_generate_takes_a_backend_and_records_it(pipeline_folder: Path, tmp_path: Path, calls: list[str]) -> None:
    video = tmp_path / "video.mp4"
    small = ["--height", "16", "--width", "16", "--frames", "5", "--steps", "1", "--guidance", "1"]
    run = ["generate", str(pipeline_folder), "--prompt", "a red circle", "--out", str(video), *small]
    result = CliRunner().invoke(app, [*run, "--attention", "_native_math"])
    assert result.exit_code == 0, result.output
    assert json.loads(video.with_suffix(".json").read_text())["attention"] == "_native_math"
    assert calls == ["_native_math"] * 4
    refused = CliRunner().invoke(app, [*run, "--attention", "sagittarius"])
    assert isinstance(refused.exception, DvdqError)
