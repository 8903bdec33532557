"""What untrained pipelines of moving shapes have in common: tokenizers of whole words, and where weights start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from dvdq_models.moving_shapes.clips import all_scenes


def prompt_words() -> list[str]:
    """Every word that a scene's prompt can contain, sorted."""
    return sorted({word for scene in all_scenes() for word in re.findall(r"\w+", scene.prompt)})


def word_tokenizer(
    tokens: Sequence[str],
    splitter: pre_tokenizers.PreTokenizer,
    *,
    sentence: str,
    length: int,
    pad: str,
    begin: str | None = None,
    end: str | None = None,
) -> PreTrainedTokenizerFast:
    """One token a word, in lower case.

    Args:
        tokens: the vocabulary in order of its numbers; ``<unk>`` among them stands for all other words.
        splitter: what a word is.
        sentence: the marks around the words, which are ``$A``.
        length: the longest text.
        pad: token that fills a text up on the right.
        begin: mark of the beginning, if there is one.
        end: mark of the end, if there is one.
    """
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = splitter
    marks = [(mark, vocabulary[mark]) for mark in (begin, end) if mark is not None]
    tokenizer.post_processor = processors.TemplateProcessing(single=sentence, special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=pad,
        unk_token="<unk>",
        padding_side="right",
        model_max_length=length,
    )


def start_gaussian(transformer: Any, joins_residual: str, blocks: int) -> None:
    """Start the linears of a transformer from a normal distribution, in place, and its last projection from zero.

    The standard deviation is ``in_features ** -0.5``, and ``(2 * blocks * in_features) ** -0.5`` where a result joins
    the residual stream: a real model's weights are nearly Gaussian, and diffusers' default start is uniform.

    Args:
        transformer: whose last projection is called ``proj_out``.
        joins_residual: a pattern of the whole names of linears whose result joins the residual stream.
        blocks: how many blocks there are.
    """
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            fan = module.in_features * (2.0 * blocks if re.fullmatch(joins_residual, name) else 1.0)
            nn.init.normal_(module.weight, std=fan**-0.5)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(transformer.proj_out.weight)
