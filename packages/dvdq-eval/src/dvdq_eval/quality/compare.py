"""All metrics of one video, and files that hold videos or latents, compared with their reference."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvdq_eval.quality.distance import check_frames, ms_ssim, psnr, relative_error, ssim, temporal_flickering
from dvdq_eval.quality.fusion import vmaf
from dvdq_models.running.video import read_mp4
from dvdq_reference.spec.errors import DvdqError


@dataclass(frozen=True)
class VideoQuality:
    """One video against its reference; of the reference itself there is how steady it is, to hold the video's against.

    ``psnr_db`` is infinite for a video equal to its reference. A single frame has no ``flickering``.
    """

    psnr_db: float
    ssim: float
    ms_ssim: float
    vmaf: float
    flickering: float | None
    reference_flickering: float | None


def measure(video: NDArray[np.floating], reference: NDArray[np.floating]) -> VideoQuality:
    """Every metric of a video ``[frames, height, width, 3]`` in ``[0, 1]``, each as its own function says.

    Raises:
        DvdqError: unequal shapes, no frames in ``[0, 1]``, frames smaller than 11 × 11, or no VMAF from ffmpeg.
    """
    check_frames("measure", video, reference)
    moves = len(video) > 1
    return VideoQuality(
        psnr_db=psnr(video, reference),
        ssim=ssim(video, reference),
        ms_ssim=ms_ssim(video, reference),
        vmaf=vmaf(video, reference),
        flickering=temporal_flickering(video) if moves else None,
        reference_flickering=temporal_flickering(reference) if moves else None,
    )


VIDEO, LATENT = ".mp4", ".npy"


@dataclass(frozen=True)
class Comparison:
    """One file against its reference: ``relative_error`` of a latent, all the others of a video.

    A video's are the fields of :class:`dvdq_eval.quality.VideoQuality`.
    """

    name: str
    psnr_db: float | None = None
    ssim: float | None = None
    ms_ssim: float | None = None
    vmaf: float | None = None
    flickering: float | None = None
    reference_flickering: float | None = None
    relative_error: float | None = None


def compare(result: Path, reference: Path) -> list[Comparison]:
    """One comparison for two files, or one a file for two folders, which must hold files of the same names."""
    if result.is_dir() and reference.is_dir():
        names, wanted = _names(result), _names(reference)
        if names != wanted or not names:
            odd = sorted(names ^ wanted) or ["no file"]
            raise DvdqError("compare", expected="two folders with files of the same names", got=", ".join(odd[:3]))
        return [_compare_files(name, result / name, reference / name) for name in sorted(names)]
    return [_compare_files(result.name, result, reference)]


def _names(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (VIDEO, LATENT))
    return {path.relative_to(folder).as_posix() for path in files}


def _compare_files(name: str, result: Path, reference: Path) -> Comparison:
    for path in (result, reference):
        if not path.is_file():
            raise DvdqError("compare", where=str(path), expected="a file, or two folders", got="neither")
    kinds = {result.suffix, reference.suffix}
    if kinds == {VIDEO}:
        # In float64 MS-SSIM would take twenty times as long, for digits that nobody reads.
        video, exact = (read_mp4(path).astype(np.float32) / 255.0 for path in (result, reference))
        return Comparison(name, **asdict(measure(video, exact)))
    if kinds == {LATENT}:
        return Comparison(name, relative_error=relative_error(_read_latent(result), _read_latent(reference)))
    raise DvdqError(
        "compare", where=name, expected=f"two {VIDEO} or two {LATENT} files", got=" and ".join(sorted(kinds))
    )


def _read_latent(path: Path) -> NDArray[np.floating]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DvdqError("compare", where=str(path), expected="an array saved by numpy", got=str(error)) from error
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        raise DvdqError(
            "compare", where=str(path), expected="an array of floats", got=getattr(array, "dtype", "others")
        )
    return array
