"""DVD-Quant in diffusers' tables of quantizers, while diffusers is still being imported.

diffusers has no registry for quantizers of others; :func:`register` adds to its tables. What quantizes needs modules of
diffusers that are not there yet at that time, so it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import Any

METHOD = "dvd-quant"
"""What ``config.json`` calls the method."""


def register() -> None:
    """Make diffusers know the method."""
    from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

    AUTO_QUANTIZER_MAPPING[METHOD] = _quantizer
    AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = _Config


def register_config(configuration: type) -> None:
    """Let the configuration's class, which is now there, take the place of what stood for it."""
    from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    AUTO_QUANTIZATION_CONFIG_MAPPING[METHOD] = configuration


def _quantizer(*args: Any, **kwargs: Any) -> Any:
    from dvdq_models.diffusers_plugin.quantizer import DVDQuantizer

    return DVDQuantizer(*args, **kwargs)


class _Config:
    """Stands for the configuration's class, of which diffusers asks this alone."""

    @staticmethod
    def from_dict(values: Any) -> Any:
        """The configuration that ``values`` describe."""
        from dvdq_models.quantization_config import DVDQuantConfig

        return DVDQuantConfig.from_dict(values)
