"""The configurations of whatever is to be inspected, with as little of it read or downloaded as tells."""

from __future__ import annotations

from pathlib import Path

from dvdq_models.families.configurations import CONFIG, Config
from dvdq_models.families.pipelines import INDEX, TRANSFORMERS, transformer_configs
from dvdq_models.files.hub import download, is_hub_id
from dvdq_models.streaming.source import open_source
from dvdq_reference.spec.errors import DvdqError


def configuration_folder(source: str | Path) -> Path:
    """A path as it is; of a hub id the folder with its configurations, which are downloaded and nothing else."""
    if not is_hub_id(source):
        return Path(source)
    return download("inspect", str(source), [INDEX, CONFIG, f"*/{CONFIG}"])


def source_configs(path: Path, config: str | Path | None = None) -> dict[str, Config]:
    """The configuration of each transformer of whatever ``dvdq quantize`` takes, and of quantized ones.

    Args:
        path: as for :func:`~dvdq_models.families.pipelines.transformer_configs`, or a ``.safetensors`` file or a folder
            with some, of which the headers alone are read.
        config: of an original checkpoint, as for :func:`dvdq_models.streaming.quantize_checkpoint`.

    Raises:
        DvdqError: as for ``transformer_configs``, weights of another model, or a ``config`` that is not needed.
    """
    in_place = [path / INDEX, path / CONFIG, *(path / name / CONFIG for name in TRANSFORMERS)]
    original = path.suffix == ".safetensors" if path.is_file() else not any(file.is_file() for file in in_place)
    if original and path.exists():
        return {part.subfolder or TRANSFORMERS[0]: part.config for part in open_source(path, config).transformers}
    if config is not None:
        expected, got = "a configuration for original checkpoints alone", "a source that has its own"
        raise DvdqError("inspect", where=f"config {config}", expected=expected, got=got)
    return dict(transformer_configs(path))
