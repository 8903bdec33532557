"""A video that a peer wrote."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from dvdq_eval.generation import Generated
from dvdq_reference.spec.errors import DvdqError


def read_video(path: Path) -> Generated:
    """The frames and latents in the ``.npz`` of a :class:`VideoJob <dvdq_eval.peers.run.VideoJob>`.

    Raises:
        DvdqError: there is no such file, or it is not one of these.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            video = Generated(arrays["frames"], arrays["latents"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DvdqError("read_video", where=str(path), expected="frames and latents", got=error) from error
    for name, values in (("frames", video.frames), ("latents", video.latents)):
        if values.dtype != np.float32 or values.ndim != 4:
            got = f"{values.dtype} {list(values.shape)}"
            raise DvdqError("read_video", where=f"{path}: {name}", expected="float32 with four axes", got=got)
    return video
