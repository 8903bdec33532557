"""What differs between the two bundled pipelines while they are trained.

The HunyuanVideo autoencoder learns the latents of the finished Wan one: group normalisation hides a clip's colour from
an untrained network of eight channels, so that encoder and decoder together hardly start to learn, while each alone,
with the other end given, does at once. Its latents are then Wan's, normalised, and its scaling factor is 1.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan, HunyuanVideoPipeline, WanPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

from dvdq_models.moving_shapes import WAN, hunyuan_video, wan

KL = 0.003
LATENT_NOISE = 0.05


class WanPrompts(torch.nn.Module):
    """UMT5 over a fixed table of prompts, with the padding zeroed as ``WanPipeline`` does."""

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self.tokenizer = wan.build_tokenizer()
        self.encoder = wan.build_text_encoder(len(self.tokenizer))
        tokens = self.tokenizer(prompts, padding="max_length", max_length=wan.TEXT_TOKENS, return_tensors="pt")
        self.register_buffer("ids", tokens.input_ids)
        self.register_buffer("mask", tokens.attention_mask)

    def forward(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """``encoder_hidden_states`` ``[batch, 16, 128]``."""
        mask = self.mask[index]
        hidden = self.encoder(self.ids[index], attention_mask=mask).last_hidden_state
        return {"encoder_hidden_states": hidden * mask[..., None]}


class HunyuanVideoPrompts(torch.nn.Module):
    """Llama behind the prompt template, and CLIP, over a fixed table of prompts, as ``HunyuanVideoPipeline`` does."""

    def __init__(self, prompts: list[str]) -> None:
        super().__init__()
        self.tokenizer, self.tokenizer_2 = hunyuan_video.build_tokenizer(), hunyuan_video.build_tokenizer_2()
        self.encoder = hunyuan_video.build_text_encoder(self.tokenizer)
        self.encoder_2 = hunyuan_video.build_text_encoder_2(self.tokenizer_2)
        self.crop = DEFAULT_PROMPT_TEMPLATE["crop_start"]
        texts = [DEFAULT_PROMPT_TEMPLATE["template"].format(prompt) for prompt in prompts]
        length = self.crop + hunyuan_video.TEXT_TOKENS
        tokens = self.tokenizer(texts, padding="max_length", max_length=length, return_tensors="pt")
        pooled = self.tokenizer_2(
            prompts, padding="max_length", max_length=hunyuan_video.POOLED_TOKENS, return_tensors="pt"
        )
        self.register_buffer("ids", tokens.input_ids)
        self.register_buffer("mask", tokens.attention_mask)
        self.register_buffer("ids_2", pooled.input_ids)

    def forward(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """``encoder_hidden_states`` ``[batch, 16, 128]``, its mask, and ``pooled_projections`` ``[batch, 64]``."""
        hidden = self.encoder(self.ids[index], attention_mask=self.mask[index], output_hidden_states=True)
        return {
            "encoder_hidden_states": hidden.hidden_states[-3][:, self.crop :],
            "encoder_attention_mask": self.mask[index][:, self.crop :].float(),
            "pooled_projections": self.encoder_2(self.ids_2[index]).pooler_output,
        }


class Family(Protocol):
    """One bundled pipeline: its parts, what its autoencoder learns, and how it is written."""

    distills_guidance: bool
    """Whether the transformer takes the guidance scale as an input, so that guidance costs no second pass."""
    ends: tuple[str, ...]
    """Embeddings and the first and last layers: not hidden matrices, so AdamW's."""

    def build_vae(self) -> Any: ...
    def load_vae(self, folder: Path) -> Any: ...
    def vae_loss(self, vae: Any, clips: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]: ...
    def record_statistics(self, vae: Any, clips: torch.Tensor) -> None: ...
    def latents(self, vae: Any, clips: torch.Tensor) -> torch.Tensor: ...
    def build_transformer(self) -> Any: ...
    def build_prompts(self, prompts: list[str]) -> torch.nn.Module: ...
    def pipeline(self, vae: Any, prompts: Any, transformer: Any) -> Any: ...


class Wan:
    """UMT5, Wan's autoencoder with a mean and deviation for each latent channel, classifier-free guidance."""

    distills_guidance = False
    ends = ("shared", "relative_attention_bias", "patch_embedding", "proj_out", "scale_shift_table")
    build_vae = staticmethod(wan.build_vae)
    load_vae = staticmethod(AutoencoderKLWan.from_pretrained)
    build_transformer = staticmethod(wan.build_transformer)
    build_prompts = WanPrompts

    def vae_loss(self, vae: Any, clips: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """The evidence bound of a Gaussian decoder, ``100 * MSE + beta * KL``."""
        posterior = vae.encode(clips).latent_dist
        mse = (vae.decode(posterior.sample()).sample - clips).square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1.0 - posterior.logvar).mean()
        return 100.0 * mse + KL * kl, {"mse": mse.item(), "kl": kl.item()}

    def record_statistics(self, vae: Any, clips: torch.Tensor) -> None:
        """Mean and standard deviation of each latent channel, into the autoencoder's configuration."""
        latents = torch.cat([vae.encode(clip[None]).latent_dist.mode() for clip in clips])
        mean, std = latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()
        vae.register_to_config(latents_mean=mean, latents_std=std)

    def latents(self, vae: Any, clips: torch.Tensor) -> torch.Tensor:
        """Latents as the transformer sees them."""
        mean = torch.tensor(vae.config.latents_mean).to(clips).view(1, -1, 1, 1, 1)
        std = torch.tensor(vae.config.latents_std).to(clips).view(1, -1, 1, 1, 1)
        return (vae.encode(clips).latent_dist.mode() - mean) / std

    def pipeline(self, vae: Any, prompts: Any, transformer: Any) -> WanPipeline:
        """The whole, in bfloat16 like the real models' files."""
        return WanPipeline(
            tokenizer=prompts.tokenizer,
            text_encoder=prompts.encoder.to(torch.bfloat16),
            vae=vae.to(torch.bfloat16),
            transformer=transformer.to(torch.bfloat16),
            scheduler=wan.build_scheduler(),
        )


class HunyuanVideo:
    """Llama and CLIP, HunyuanVideo's autoencoder over Wan's latents, guidance as an input."""

    distills_guidance = True
    ends = ("embed_tokens", "token_embedding", "position_embedding", "x_embedder", "transformer.proj_out")
    build_vae = staticmethod(hunyuan_video.build_vae)
    load_vae = staticmethod(AutoencoderKLHunyuanVideo.from_pretrained)
    build_transformer = staticmethod(hunyuan_video.build_transformer)
    build_prompts = HunyuanVideoPrompts

    def vae_loss(self, vae: Any, clips: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Both ends against Wan's latents ``z``: the likelihood of z, and the picture decoded from z.

        ``MSE(mean, z) + 10 * MSE(decode(z + noise), clip)``, and the variance learns what error is left.
        """
        with torch.no_grad():
            z = self.latents(vae, clips)
        posterior = vae.encode(clips).latent_dist
        error = (posterior.mean - z).square()
        spread = 0.5 * (error.detach() * torch.exp(-posterior.logvar) + posterior.logvar).mean()
        mse = (vae.decode(z + LATENT_NOISE * torch.randn_like(z)).sample - clips).square().mean()
        return error.mean() + 0.1 * spread + 10.0 * mse, {"mse": mse.item(), "latent_mse": error.mean().item()}

    def record_statistics(self, vae: Any, clips: torch.Tensor) -> None:
        """Nothing: Wan's latents are normalised already."""

    @functools.cached_property
    def _teacher(self) -> AutoencoderKLWan:
        return AutoencoderKLWan.from_pretrained(str(WAN.folder / "vae"), dtype=torch.float32).eval()

    def latents(self, vae: Any, clips: torch.Tensor) -> torch.Tensor:
        """Wan's latents, normalised."""
        return Wan().latents(self._teacher.to(clips.device), clips)

    def pipeline(self, vae: Any, prompts: Any, transformer: Any) -> HunyuanVideoPipeline:
        """The whole, in bfloat16 like the real models' files."""
        return HunyuanVideoPipeline(
            tokenizer=prompts.tokenizer,
            text_encoder=prompts.encoder.to(torch.bfloat16),
            tokenizer_2=prompts.tokenizer_2,
            text_encoder_2=prompts.encoder_2.to(torch.bfloat16),
            vae=vae.to(torch.bfloat16),
            transformer=transformer.to(torch.bfloat16),
            scheduler=hunyuan_video.build_scheduler(),
        )


FAMILIES: dict[str, Family] = {"wan": Wan(), "hunyuan-video": HunyuanVideo()}
