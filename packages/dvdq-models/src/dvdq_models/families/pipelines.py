"""The one reader of a folder: what a pipeline's ``model_index.json`` and its parts' configurations say, no weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dvdq_models.families import call_of, families
from dvdq_models.families.configurations import CONFIG, is_ours, read_config
from dvdq_models.families.family import Family, Size
from dvdq_models.files.text import read_json
from dvdq_reference.spec.errors import DvdqError

INDEX = "model_index.json"
TRANSFORMERS = ("transformer", "transformer_2")
"""A pipeline's denoisers: Wan 2.2's A14B has one for the first, noisy steps and one for the rest."""
_LIBRARIES = ("diffusers", "transformers")
"""Whose classes are looked up; a component of another library says itself what it is."""


def transformers_of(pipeline: Any) -> dict[str, Any]:
    """The transformers of a pipeline in memory, by name."""
    return {name: part for name in TRANSFORMERS if (part := getattr(pipeline, name, None)) is not None}


def is_pipeline(folder: Path) -> bool:
    """Whether ``folder`` is a pipeline's."""
    return (folder / INDEX).is_file()


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline's folder as its index describes it.

    Attributes:
        operation: for errors.
        path: of the folder.
        class_name: of the pipeline.
        components: library and class of each part that is there, by the name of its folder.
    """

    operation: str
    path: Path
    class_name: object
    components: Mapping[str, tuple[Any, Any]]

    @classmethod
    def open(cls, operation: str, folder: str | Path) -> Self:
        """Read the index.

        Raises:
            DvdqError: no index, one that is no JSON object, or a component that is no name of a folder.
        """
        path = Path(folder)
        if not is_pipeline(path):
            raise DvdqError(operation, where=str(path), expected="a pipeline's folder", got=f"no {INDEX}")
        index = read_json(operation, path / INDEX)
        listed = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
        components = {name: (library, part) for name, (library, part) in listed.items() if part is not None}
        if others := [name for name in components if Path(name).name != name]:
            raise DvdqError(operation, where=str(path / INDEX), expected="names of components", got=repr(others[0]))
        return cls(operation, path, index.get("_class_name"), components)

    @property
    def pipeline_class(self) -> Any:
        """The pipeline's class; one that is not installed is a :class:`DvdqError`."""
        # Whatever stands in the file: a list has no hash.
        module = next((f.module for f in families() if self.class_name in tuple(f.pipelines)), "diffusers")
        return self._class("_class_name", module, self.class_name)

    @property
    def fps(self) -> int:
        """Frames a second that its videos are made for; a pipeline that is not known is a :class:`DvdqError`."""
        call = call_of(self.operation, self.class_name, where=str(self.path / INDEX))
        folders = [self.path / name for name in self.transformers if (self.path / name / CONFIG).is_file()]
        return call.fps_of(read_config(self.operation, folders[0]) if folders else {})

    @property
    def transformers(self) -> tuple[str, ...]:
        """The names of its transformers: those of the index, and those that lie there without being named."""
        return tuple(name for name in TRANSFORMERS if name in self.components or (self.path / name / CONFIG).is_file())

    @property
    def quantized(self) -> tuple[str, ...]:
        """Those of its transformers that this project quantized."""
        return tuple(name for name in self.transformers if is_quantized(self.path / name))

    def check_classes(self) -> None:
        """A :class:`DvdqError` if the pipeline or a component is of a class that is not installed."""
        assert self.pipeline_class
        for name, (library, class_name) in self.components.items():
            if library in _LIBRARIES or not isinstance(class_name, str):
                self._class(name, library, class_name)

    def _class(self, name: str, library: str, class_name: object) -> Any:
        module = importlib.import_module(library)
        if not isinstance(class_name, str) or class_name not in dir(module):
            expected = f"a class of the installed {library} {getattr(module, '__version__', '')}".rstrip()
            raise DvdqError(self.operation, where=f"{self.path / INDEX}: {name}", expected=expected, got=class_name)
        return getattr(module, class_name)


def is_quantized(folder: str | Path) -> bool:
    """Whether ``folder`` holds a transformer that this project quantized, or a pipeline with one."""
    places = (Path(folder), *(Path(folder) / name for name in TRANSFORMERS))
    return any(is_ours(read_config("load", place)) for place in places if (place / CONFIG).is_file())


def transformer_configs(path: str | Path) -> dict[str, Path]:
    """The ``config.json`` of each transformer by its name in a pipeline; a single one is called ``transformer``.

    Args:
        path: a pipeline's folder, a transformer's folder, or the ``config.json`` itself.

    Raises:
        DvdqError: no configuration, or a pipeline that names a transformer that is not there.
    """
    path = Path(path)
    if path.is_file():
        return {TRANSFORMERS[0]: path}
    if is_pipeline(path):
        components = PipelineFolder.open("inspect", path).components
        named = [name for name in TRANSFORMERS if name in components]
    else:
        named = [name for name in TRANSFORMERS if (path / name / CONFIG).is_file()]
    configs = {name: path / name / CONFIG for name in named} or {TRANSFORMERS[0]: path / CONFIG}
    for config in configs.values():
        if not config.is_file():
            raise DvdqError("inspect", where=str(config), expected="a config.json of a transformer", got="none")
    return configs


def latent_size(path: str | Path, video: Size, family: Family) -> Size:
    """Frames, height and width of the latents of a video, by the autoencoder of the pipeline in ``path``.

    Where there is none, those of the family's pipelines.
    """
    config = Path(path) / "vae" / CONFIG
    temporal, spatial = compression_of(read_json("inspect", config) if config.is_file() else {}, family)
    frames, height, width = video
    return (frames - 1) // temporal + 1, height // spatial, width // spatial


def compression_of(autoencoder: Mapping[str, Any], family: Family) -> tuple[int, int]:
    """Frames and pixels that become one latent, by the configuration of an autoencoder, else by the family."""
    temporal, spatial = family.compression
    return (
        autoencoder.get("scale_factor_temporal") or autoencoder.get("temporal_compression_ratio") or temporal,
        autoencoder.get("scale_factor_spatial") or autoencoder.get("spatial_compression_ratio") or spatial,
    )
