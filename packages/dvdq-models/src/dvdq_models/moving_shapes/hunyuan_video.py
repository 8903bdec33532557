"""The untrained parts of the moving-shapes pipeline of HunyuanVideo's own classes at a small size.

Latents are ``[8, 5, 8, 8]`` (4x in time, 8x in space), so the transformer sees 5 x 4 x 4 = 80 tokens of width 256 and
up to 16 of text. Two blocks keep image and text apart, three join them. Text goes through the prompt template of the
real model: the tokenizer splits it into the 95 tokens that ``HunyuanVideoPipeline`` cuts off again.
"""

from __future__ import annotations

import re

from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers import Regex, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from dvdq_models.moving_shapes.parts import prompt_words, start_gaussian, word_tokenizer

TEXT_TOKENS = 16
TEXT_WIDTH = 128
POOLED_WIDTH = 64
POOLED_TOKENS = 77
"""``HunyuanVideoPipeline`` pads the text of its CLIP encoder to this length, whatever the tokenizer says."""
LATENT_CHANNELS = 8
_LLAMA_TOKENS = r"<\|[^|]*\|>| (?=\d)|\n\n|\w+|[^\w\s]"
"""Marks, words, punctuation, and the two kinds of white space that are tokens of their own in Llama 3."""


def build_vae() -> AutoencoderKLHunyuanVideo:
    """A HunyuanVideo autoencoder of 0.7 M parameters, compression 4x8x8."""
    channels = (8, 16, 32, 32)
    return AutoencoderKLHunyuanVideo(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * len(channels),
        up_block_types=("HunyuanVideoUpBlock3D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=1,
        scaling_factor=1.0,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Llama's part: one token for each word of a prompt or of the template around it."""
    template = dict.fromkeys(re.findall(_LLAMA_TOKENS, DEFAULT_PROMPT_TEMPLATE["template"].lower().replace("{}", "")))
    begin = "<|begin_of_text|>"
    return word_tokenizer(
        ["<pad>", "<unk>", begin, *template, *(word for word in prompt_words() if word not in template)],
        pre_tokenizers.Split(Regex(_LLAMA_TOKENS), behavior="removed", invert=True),
        sentence=f"{begin} $A",
        length=256,
        pad="<pad>",
        begin=begin,
    )


def build_tokenizer_2() -> PreTrainedTokenizerFast:
    """CLIP's part: the words of a prompt between a start and an end token, padded with the latter."""
    begin, end = "<|startoftext|>", "<|endoftext|>"
    return word_tokenizer(
        [end, "<unk>", begin, *prompt_words()],
        pre_tokenizers.Whitespace(),
        sentence=f"{begin} $A {end}",
        length=POOLED_TOKENS,
        pad=end,
        begin=begin,
        end=end,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> LlamaModel:
    """A Llama of three layers, 128 wide; the pipeline reads what the first gives, so the last two are never used."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=None,
        )
    )


def build_text_encoder_2(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """A CLIP text encoder of two layers, 64 wide, that gives one vector a prompt."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=POOLED_WIDTH,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=POOLED_TOKENS,
            projection_dim=POOLED_WIDTH,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_transformer() -> HunyuanVideoTransformer3DModel:
    """Two double-stream and three single-stream blocks, 256 wide, whose linears start from a normal distribution."""
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=64,
        num_layers=2,
        num_single_layers=3,
        num_refiner_layers=1,
        mlp_ratio=3.0,
        patch_size=2,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH,
        rope_axes_dim=(16, 24, 24),
    )
    blocks = transformer.config.num_layers + transformer.config.num_single_layers
    joins_residual = r".*(to_out\.0|to_add_out|ff(_context)?\.net\.2)|single_transformer_blocks\.\d+\.proj_out"
    start_gaussian(transformer, joins_residual, blocks)
    return transformer


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """HunyuanVideo's sampler; its own shift, 7, is for a thousand times the tokens."""
    return FlowMatchEulerDiscreteScheduler(shift=3.0)
