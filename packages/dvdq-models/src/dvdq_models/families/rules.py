"""A family as data: which linear is treated how, and how many of each there must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from dvdq_reference.spec.errors import DvdqError

Treatment = Literal["quantize", "weight-only", "keep"]
"""Integer weights and activations; integer weights and full activations; untouched."""


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
    count: Callable[[Mapping[str, Any]], int]


@dataclass(frozen=True)
class Family:
    """A name, the diffusers classes it covers, and a rule for each of their linears."""

    name: str
    classes: tuple[str, ...]
    rules: tuple[Rule, ...]

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
