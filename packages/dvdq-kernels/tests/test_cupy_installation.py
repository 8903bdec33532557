"""What a machine is told that has a GPU and not what its CUDA kernels need: the machine is a stand-in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from types import SimpleNamespace

import pytest

from dvdq_kernels import refusals
from dvdq_kernels.backends.cupy import installation
from dvdq_kernels.backends.cupy.target import EMULATE
from dvdq_kernels.registry import backends

WHOLE = {"cupy-cuda13x": "14.2.0", "cuda-bindings": "13.0.3"}
FOR_12, FOR_13 = "pip install 'dvdq-kernels[cupy-cuda12]'", "pip install 'dvdq-kernels[cupy]'"

Machine = Callable[..., str | None]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """What ``backends()`` says of ``cupy`` on a machine with these distributions and this driver."""
    monkeypatch.delenv(EMULATE, raising=False)
    monkeypatch.setattr(refusals, "gpu_refusal", lambda otherwise: None)

    def machine(installed: dict[str, str], driver: tuple[int, int] | None = (13, 0), nvrtc: bool = True) -> str | None:
        def version(name: str) -> str:
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        def load(name: str) -> None:
            if not nvrtc:
                raise LookupError(name)

        pathfinder = SimpleNamespace(load_nvidia_dynamic_lib=load, DynamicLibNotFoundError=LookupError)
        monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=pathfinder))
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(installation, "driver_cuda", lambda: driver)
        present = any(name.startswith("cupy") for name in installed)
        monkeypatch.setattr(refusals, "is_installed", lambda module: present)
        installation.refusal.cache_clear()
        return backends()["cupy"]

    yield machine
    installation.refusal.cache_clear()


@pytest.mark.parametrize("driver", [(13, 0), (13, 2), (14, 0)])
def test_what_fits_is_not_refused(told: Machine, driver: tuple[int, int]) -> None:
    assert told(WHOLE, driver) is None
    assert told({"cupy-cuda12x": "14.0.1", "cuda-bindings": "12.9.4"}, driver) is None
    assert told({"cupy": "14.2.0", "cuda-bindings": "13.0.3"}, driver) is None


def test_a_driver_that_is_too_old_gets_the_other_extra(told: Machine) -> None:
    said = str(told(WHOLE, (12, 8)))
    assert said.startswith("cupy-cuda13x needs a driver of CUDA 13, here is one of 12.8: pip uninstall cupy-cuda13x")
    assert said.endswith(FOR_12)
    assert told({"cupy-cuda12x": "14.2.0", "cuda-bindings": "12.9.4"}, (12, 8)) is None


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        ({"cupy-cuda13x": "13.6.0", "cuda-bindings": "13.0.3"}, "needs CuPy 14.0 or newer, here is cupy-cuda13x 13.6"),
        ({"cupy-cuda13x": "14.2.0"}, "cuda-bindings is not installed"),
        ({}, "cupy is not installed"),
    ],
)
@pytest.mark.parametrize(("driver", "wheel", "how"), [((12, 8), 12, FOR_12), ((13, 0), 13, FOR_13), (None, 13, FOR_13)])
def test_what_is_missing_is_named_with_the_extra_that_brings_it(
    told: Machine, installed: dict[str, str], reason: str, driver: tuple[int, int] | None, wheel: int, how: str
) -> None:
    said = str(told({name.replace("13x", f"{wheel}x"): v for name, v in installed.items()}, driver))
    assert said.startswith(reason.replace("13x", f"{wheel}x"))
    assert said.endswith(how)


def test_a_missing_compiler_is_found_before_the_first_kernel(told: Machine) -> None:
    assert told(WHOLE, nvrtc=False) == f"NVRTC is not installed: {FOR_13}"


def test_a_driver_is_asked_for_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(status: int) -> Callable[[str], object]:
        def version(found: object) -> int:
            found._obj.value = 12080  # type: ignore[attr-defined]
            return status

        return lambda name: SimpleNamespace(cuDriverGetVersion=version)

    for status, driver in ((0, (12, 8)), (3, None)):
        monkeypatch.setattr(installation.ctypes, "CDLL", asked(status))
        assert installation.driver_cuda() == driver
    monkeypatch.undo()
    monkeypatch.setattr(installation, "_DRIVER", "no-such-driver.so.1")
    assert installation.driver_cuda() is None
