"""A family as data: all that the rest of the project has to know of some transformers and their pipelines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from dvdq_models.families.moments import Channels, Weights
from dvdq_reference.spec.errors import DvdqError

Signal = Literal["timestep", "timestep-projection", "modulated-input"]
"""What TeaCache may look at: the embedded time step, what blocks are modulated with, or the first one's input."""
Treatment = Literal["quantize", "weight-only", "keep"]
"""Integer weights and activations; integer weights and full activations; untouched."""
Config = Mapping[str, Any]
"""A transformer's ``config.json``."""
Size = tuple[int, int, int]
"""Frames, height and width."""
Inputs = dict[str, Any]
"""Keyword arguments of one forward pass."""


@dataclass(frozen=True)
class Rule:
    r"""Linears whose whole name matches ``pattern``, e.g. ``Rule(r"blocks\.\d+\.ffn\.net\.2", "quantize", …)``.

    Args:
        pattern: a regular expression for :func:`re.fullmatch`.
        treatment: what happens to them.
        count: how many there are in a model of the given configuration.
    """

    pattern: str
    treatment: Treatment
    count: Callable[[Config], int]


@dataclass(frozen=True)
class Example:
    """What the inputs of one pass are made from.

    Attributes:
        config: the transformer's, its entries as attributes.
        latent: frames, height and width of the latents.
        text_tokens: of the prompt, padded.
        normal: a Gaussian tensor of the given shape, in the dtype and on the device of the pass, or on another.
        timestep: ``[1]``, float32.
        known: the device of inputs whose values the model looks at: that of the pass, or the CPU if that has no data.
    """

    config: Any
    latent: Size
    text_tokens: int
    normal: Callable[..., torch.Tensor]
    timestep: torch.Tensor
    known: torch.device


@dataclass(frozen=True)
class Call:
    """How a pipeline class is called.

    Attributes:
        fps: frames a second that its videos are made for: what its call tells the transformer, where it tells one, else
            what its makers write. Where models of one pipeline differ, by the transformer's configuration.
        names: the argument that each option of a command sets, among :data:`OPTIONS`.
        prompt_alone: whether the prompt alone has to fit into the tokenizer's length. HunyuanVideo puts a template
            around the prompt, whose tokens come on top of that length.
        needs: what a call must be given and no option of a command can, e.g. ``"a video"``.
    """

    fps: int | Callable[[Config], int]
    names: Mapping[str, str]
    prompt_alone: bool = True
    needs: str = ""

    def fps_of(self, config: Config) -> int:
        """Frames a second of a pipeline whose transformer has this configuration."""
        return self.fps if isinstance(self.fps, int) else self.fps(config)


OPTIONS = (
    "negative_prompt",
    "height",
    "width",
    "frames",
    "steps",
    "text_tokens",
    "guidance",
    "guidance_2",
    "embedded_guidance",
    "image",
)
"""What a command may set of a call."""
USUAL = {
    "negative_prompt": "negative_prompt",
    "height": "height",
    "width": "width",
    "frames": "num_frames",
    "steps": "num_inference_steps",
    "text_tokens": "max_sequence_length",
    "guidance": "guidance_scale",
}
"""What most pipelines call them."""


@dataclass(frozen=True)
class Embedding:
    """A signal that a submodule gives, e.g. ``Embedding("condition_embedder", 0)``: its output, or one of several."""

    module: str
    index: int


Modulated = Callable[[Any, Callable[[str], Any]], torch.Tensor]
"""A signal made by the first block of its arguments, which are given by name."""


def modulation(_block: Any, argument: Callable[[str], Any]) -> torch.Tensor:
    """The embedded time step as most blocks are given it."""
    embedded: torch.Tensor = argument("temb")
    return embedded


TWO_STREAMS = ("hidden_states", "encoder_hidden_states")
"""What blocks of latents and text return."""


@dataclass(frozen=True)
class Caching:
    """Where TeaCache hooks in.

    Attributes:
        blocks: the lists of blocks, in the order in which they run.
        signals: what it can look at, by name; the first is the default.
        returns: the arguments of a block whose new values it returns, the latents first. Nothing else may change
            between the blocks.
    """

    blocks: tuple[str, ...]
    signals: Mapping[Signal, Embedding | Modulated]
    returns: tuple[str, ...] = ("hidden_states",)


Moments = Callable[[Weights, Config], Iterator[tuple[str, Channels]]]
"""What quantized linears are given, by name; one that is not named is given what cannot be known."""


@dataclass(frozen=True)
class Halves:
    """A tensor of the original that has the second half of the module's rows before the first."""

    module: str


OriginalNames = Mapping[str, str | tuple[str, ...] | Halves]
"""Modules or parameters of the original: which of diffusers each is, or which stand in it one below the other.

``{}`` is the number of a block, as in ``{"blocks.{}.self_attn.q": "blocks.{}.attn1.to_q"}``.
"""


@dataclass(frozen=True)
class Family:
    """Transformers that are treated alike.

    Attributes:
        name: e.g. ``"wan"``.
        classes: of the transformers.
        rules: one for each of their linears.
        inputs: those of one pass.
        prompt_tokens: that its pipelines pad a prompt to.
        passes: of the transformer in a denoising step: two where guidance compares them, one where it is an input.
        compression: frames and pixels that become one latent, where no autoencoder says so.
        pipelines: how each of their classes is called.
        teacache: where TeaCache hooks into each class, or why it cannot.
        moments: what the inputs of its linears are like, from the weights of one of its transformers.
        originals: how the kinds of checkpoints in its authors' own format begin, as diffusers tells them apart.
        original_names: what its tensors are called there, by the class; of those that ComfyUI runs.
        experts: the folder in its authors' own repository of each transformer of a pipeline with several.
        module: where its classes are imported from.
    """

    name: str
    classes: tuple[str, ...]
    rules: tuple[Rule, ...]
    inputs: Callable[[Example], Inputs]
    prompt_tokens: int
    passes: int = 2
    compression: tuple[int, int] = (4, 8)
    pipelines: Mapping[str, Call] = field(default_factory=dict)
    teacache: Mapping[str, Caching | str] = field(default_factory=dict)
    moments: Moments | None = None
    originals: tuple[str, ...] = ()
    original_names: Mapping[str, OriginalNames] = field(default_factory=dict)
    experts: Mapping[str, str] = field(default_factory=dict)
    module: str = "diffusers"

    def magnitudes(self, weights: Weights, config: Config) -> dict[str, torch.Tensor]:
        """How large the channels are that each quantized linear is given, float32 ``[in]`` by name, from weights alone.

        Raises:
            DvdqError: a family whose moments nobody has written down, or weights that are not finite.
        """
        operation = "analytic smoothing"
        if self.moments is None:
            raise DvdqError(operation, where=self.name, expected="a family with moments", got="none")
        found = {name: channels.magnitude() for name, channels in self.moments(weights, config)}
        for name, magnitude in found.items():
            if not bool(magnitude.isfinite().all()):
                raise DvdqError(operation, where=name, expected="finite weights before it", got="NaN or Inf")
        return found

    def treatments(self, transformer: Any) -> dict[str, Treatment]:
        """The treatment of every linear by module name, in the model's order.

        Raises:
            DvdqError: a linear that matches no rule or several (named), or a rule that does not match as often as
                the configuration says.
        """
        operation = f"rules of {self.name}"
        found: dict[str, Treatment] = {}
        matches = dict.fromkeys(self.rules, 0)
        for name, module in transformer.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            matching = [rule for rule in self.rules if re.fullmatch(rule.pattern, name)]
            if len(matching) != 1:
                patterns = " and ".join(rule.pattern for rule in matching) or "none"
                raise DvdqError(operation, where=name, expected="exactly one matching rule", got=patterns)
            found[name] = matching[0].treatment
            matches[matching[0]] += 1
        for rule, count in matches.items():
            expected = rule.count(transformer.config)
            if count != expected:
                raise DvdqError(operation, where=rule.pattern, expected=f"{expected} linears", got=count)
        return found


def patch_of(config: Config) -> Size:
    """Frames, height and width of the latents that become one token."""
    size = config.get("patch_size") or 1
    if isinstance(size, int):
        return config.get("patch_size_t") or 1, size, size
    frames, height, width = size
    return frames, height, width
