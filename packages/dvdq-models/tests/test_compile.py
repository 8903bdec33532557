"""torch.compile on quantized models: one graph a width, no break, nothing compiled again, the results of eager mode."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from dvdq_models import Recipe, quantize, trace
from dvdq_models.layers.activation_state import ActivationState
from dvdq_models.switching.hook import attach, hook_of
from dvdq_reference.spec.recipe import ActivationRule, BitSchedule

RECIPE = Recipe.named("dvd-quant", "W4A6")
BLOCKS = {
    "wan": ("transformer", "call", "blocks"),
    "hunyuan, two streams": ("hunyuan_transformer", "call_hunyuan", "transformer_blocks"),
    "hunyuan, one stream": ("hunyuan_transformer", "call_hunyuan", "single_transformer_blocks"),
}
OPERATORS = {
    # K and V of self-attention and V of cross-attention share; modulation is full.
    "wan": {"integer_linear": 10, "rotate_quantize": 7},
    "hunyuan, two streams": {"integer_linear": 12, "rotate_quantize": 8, "float_linear": 2},
    "hunyuan, one stream": {"integer_linear": 5, "rotate_quantize": 3, "float_linear": 1},
}
SCHEDULES = [
    BitSchedule("constant"),
    BitSchedule("delta", delta=0.3),
    BitSchedule("low", last_high=2),
    BitSchedule("sba"),
]
"""One width; two by what is measured; two at the end; two as planned, as the other schedules do."""


@dataclass
class Graphs:
    """A backend that runs what it is given as it is, and keeps it."""

    captured: list[torch.fx.GraphModule] = field(default_factory=list)

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        self.captured.append(graph)
        return graph.forward

    @property
    def operators(self) -> Counter[str]:
        """How often each of our operators stands in the graphs."""
        targets = (str(node.target) for graph in self.captured for node in graph.graph.nodes)
        return Counter(target.split(".")[1] for target in targets if target.startswith("dvdq."))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@dataclass
class Block:
    """One block of a quantized model, what goes into it, and the state that says its width."""

    module: torch.nn.Module
    inputs: tuple[Any, ...]
    state: ActivationState
    name: str


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest) -> Block:
    model, run, blocks = BLOCKS[request.param]
    transformer = quantize(request.getfixturevalue(model), RECIPE)
    module = getattr(transformer, blocks)[0]
    seen: list[tuple[Any, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args))
    request.getfixturevalue(run)(transformer, mode=torch.no_grad)
    handle.remove()
    return Block(module, seen[0], hook_of(transformer).state, request.param)


def equal(got: Any, expected: Any) -> bool:
    if isinstance(got, torch.Tensor):
        return torch.equal(got, expected)
    return len(got) == len(expected) and all(map(equal, got, expected))


def test_a_block_is_one_graph_a_width(block: Block) -> None:
    graphs = Graphs()
    compiled = torch.compile(block.module, fullgraph=True, backend=aot_autograd(fw_compiler=graphs))
    with torch.inference_mode():
        inputs = tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in block.inputs)
        for count, bits in enumerate((8, 4, 8, 4), start=1):
            block.state.bits = bits
            assert equal(compiled(*inputs), block.module(*inputs))
            assert len(graphs.captured) == min(count, 2)
    assert graphs.operators == {name: 2 * count for name, count in OPERATORS[block.name].items()}


def test_activations_that_were_written_to_are_quantized_again() -> None:
    def twice(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state, rule = ActivationState(4), ActivationRule(4, 128)
        y = x + 1
        first = state.quantize(y, rule, None, "auto")
        y.view(-1).mul_(2)
        second, third = (state.quantize(y, rule, None, "auto") for _ in range(2))
        return first.scale, second.scale, third.scale

    graphs = Graphs()
    compiled = torch.compile(twice, fullgraph=True, backend=aot_autograd(fw_compiler=graphs))
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert equal(compiled(x), twice(x))
    assert graphs.operators["rotate_quantize"] == 2 * len(graphs.captured)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.kind)
def test_a_pipeline_of_compiled_blocks_gives_the_same_video(
    pipeline: Any, generate: Callable[..., torch.Tensor], schedule: BitSchedule
) -> None:
    quantize(pipeline.transformer, replace(RECIPE, schedule=schedule))
    expected = generate(pipeline)
    decisions = trace(pipeline.transformer)
    widths = {decision.bits for decision in decisions}
    assert len(widths) == (1 if schedule.kind == "constant" else 2)
    graphs = Graphs()
    pipeline.transformer.compile_repeated_blocks(fullgraph=True, backend=graphs)
    assert torch.equal(generate(pipeline), expected)
    assert trace(pipeline.transformer) == decisions
    assert len(graphs.captured) == len(widths)


def test_compiled_blocks_of_a_hunyuan_video_are_one_graph_a_kind_and_width(
    hunyuan_transformer: Any, call_hunyuan: Callable[..., torch.Tensor]
) -> None:
    quantize(hunyuan_transformer, RECIPE)

    def run_at(bits: str) -> torch.Tensor:
        attach(hunyuan_transformer, Recipe.named("dvd-quant", bits), hook_of(hunyuan_transformer).state)
        return call_hunyuan(hunyuan_transformer)

    expected = {bits: run_at(bits) for bits in ("W4A8", "W4A4")}
    graphs = Graphs()
    hunyuan_transformer.compile_repeated_blocks(fullgraph=True, backend=graphs)
    for bits in ("W4A8", "W4A4", "W4A8", "W4A4"):
        assert torch.equal(run_at(bits), expected[bits])
    # Two kinds of blocks at two widths; the patch embedder and the text's refiner have none.
    assert len(graphs.captured) == 6


def test_a_whole_model_breaks_only_around_the_bit_switch(pipeline: Any, generate: Callable[..., torch.Tensor]) -> None:
    quantize(pipeline.transformer, replace(RECIPE, schedule=BitSchedule("sba")))
    expected = generate(pipeline)
    graphs = Graphs()
    pipeline.transformer.compile(backend=graphs)
    assert torch.equal(generate(pipeline), expected)
    assert torch.equal(generate(pipeline), expected)
    assert len(graphs.captured) == 2
    before, after = sorted(counters["graph_break"], key=lambda reason: "post_forward" in reason)
    assert "BitSwitchHook.pre_forward" in before
    assert "BitSwitchHook.post_forward" in after


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # Inductor's own imports
@pytest.mark.skipif(shutil.which("c++") is None, reason="Inductor needs a C++ compiler to make code for a CPU")
def test_inductor_changes_nothing_between_exact_operations(transformer: Any) -> None:
    attention = quantize(transformer, RECIPE).blocks[0].attn1

    def project(x: torch.Tensor) -> torch.Tensor:
        """Every operation around the layers has one rounding or none, so fused or not it gives the same bits."""
        x = torch.relu(x)
        return torch.maximum(attention.to_q(x), attention.to_k(x) + attention.to_v(x))

    x = torch.randn(2, 32, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(torch.compile(project, fullgraph=True)(x), project(x))
