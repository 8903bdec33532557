"""The untrained parts of the moving-shapes pipeline: Wan's own classes at a small size.

Text is one token a word. Latents are ``[8, 5, 8, 8]`` (4x in time, 8x in space), so the transformer sees
5 x 4 x 4 = 80 tokens of width 256; its feed-forward width, 768 = 12 * 2^6, is a size that only a Kronecker Hadamard
matrix rotates, as in the real models.
"""

from __future__ import annotations

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from dvdq_models.moving_shapes.parts import prompt_words, start_gaussian, word_tokenizer

TEXT_TOKENS = 16
TEXT_WIDTH = 128
LATENT_CHANNELS = 8


def build_vae() -> AutoencoderKLWan:
    """A Wan autoencoder that works on 2x2 patches, as Wan 2.2's does: 0.7 M parameters, compression 4x8x8."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=8,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word that a scene's prompt can contain, ended by ``</s>`` like T5's."""
    return word_tokenizer(
        ["<pad>", "</s>", "<unk>", *prompt_words()],
        pre_tokenizers.Whitespace(),
        sentence="$A </s>",
        length=TEXT_TOKENS,
        pad="<pad>",
        end="</s>",
    )


def build_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """A two-layer UMT5 encoder, 128 wide."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=TEXT_WIDTH,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=2,
            dropout_rate=0.0,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=16,
        )
    )


def build_transformer() -> WanTransformer3DModel:
    """A Wan transformer of six blocks, 256 wide, whose linears start from a normal distribution."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=768,
        num_layers=6,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    start_gaussian(transformer, r".*(to_out\.0|ffn\.net\.2)", transformer.config.num_layers)
    return transformer


def build_scheduler() -> UniPCMultistepScheduler:
    """Wan's sampler for flow matching, with the shift of its 480p models."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
