# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.5"]
# ///
"""Everything that can be run here, one session each: ``nox --list`` shows them, ``nox -s NAME`` runs one.

A session starts from a new environment. It builds wheels of the packages that it needs into its own temporary folder
and installs those: what is tested is what a user would install. All versions are those of constraints.txt.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")
# Whose passes are timed on a GPU, at the sizes that their makers show.
MODELS = {"wan2.1-1.3b": "81x480x832", "wan2.1-14b": "81x480x832", "hunyuan-video-13b": "129x544x960"}
# What ``nox -s bench`` runs.
CPU_BENCHMARKS = (
    "bgr_vs_oracle",
    "bgr_vs_orbitquant",
    "cpu_compile",
    "cpu_linear",
    "cpu_pass",
    "cpu_roofline",
    "streaming_memory",
    "teacache",
)
# The long form of what is timed on a GPU.
GPU_BENCHMARKS = ("gpu_linear", "gpu_rotate_quantize", "gpu_weight_only", "gpu_bgr")
# The oldest Python that the packages declare, and the newest that all they depend on has wheels for.
OLDEST, NEWEST = "3.11", "3.13"
# Of each minor version that dvdq-kernels declares, the one that a release of torch requires or the latest.
TRITONS = ["3.6.0", "3.7.1", "3.8.0", "3.9.0"]
# Each package depends on all those before it.
PACKAGES = ["dvdq-reference", "dvdq-kernels", "dvdq-models", "dvdq-eval"]


def install(session: nox.Session, package: str, *groups: str) -> None:
    """Install ``package`` from a wheel built now, and the dependency groups of pyproject.toml that a session uses."""
    wheels = build_wheels(session, package)
    tools = nox.project.dependency_groups(PROJECT, *groups)
    session.install("--constraint=constraints.txt", f"--find-links={wheels}", package, *tools)
    session.run("python", "-m", "pip", "check")


def build_wheels(session: nox.Session, package: str) -> Path:
    """The folder with wheels of ``package`` and of those that it depends on."""
    wheels = Path(session.create_tmp()) / "wheels"
    folders = [f"packages/{name}" for name in PACKAGES[: PACKAGES.index(package) + 1]]
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={wheels}", *folders)
    return wheels


def resolution(wheels: Path) -> list[str]:
    """The command that finds one version of all that any session installs, for every system and Python at once.

    It asks the index for metadata alone, and takes no configuration but its arguments.
    """
    wanted = [PACKAGES[-1], *nox.project.dependency_groups(PROJECT, *PROJECT["dependency-groups"])]
    requirements = wheels / "requirements.in"
    requirements.write_text("\n".join(wanted) + "\n")
    one = ("--universal", "--fork-strategy=fewest", "--python-version=3.11")
    here = (f"--python={sys.executable}", "--no-python-downloads", "--no-config", f"--find-links={wheels}")
    return ["uv", "pip", "compile", "--quiet", *one, *here, str(requirements)]


def check_style(session: nox.Session) -> None:
    """Format, rules, types and the direction of imports."""
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("mypy")
    session.run("lint-imports")


def interpret_triton(session: nox.Session) -> None:
    """Triton's kernels on a CPU, in its interpreter, which a process either is in or not: conformance and mutants."""
    if sys.platform == "linux":
        folders = ("tests/conformance", "tests/mutants")
        session.run("pytest", "--numprocesses=auto", *folders, "-k", "triton", env={"TRITON_INTERPRET": "1"})


def emulate_cupy(session: nox.Session) -> None:
    """CUDA kernels on a CPU, as a GPU with INT4 tensor cores and as an H100 would run them: conformance and mutants."""
    if sys.platform == "linux":
        # What has a way of its own on 9.0; all else is the same code on both.
        hopper = "cupy and not machine_code and (wgmma or pipeline or packed or behaviour or 300)"
        for capability, chosen in (("89", "cupy and not machine_code"), ("90", hopper)):
            folders = ("tests/conformance", "tests/mutants")
            environment = {"DVDQ_CUPY_EMULATE": capability}
            session.run("pytest", "--numprocesses=auto", *folders, "-k", chosen, env=environment)


def build_docs(session: nox.Session) -> None:
    """The documentation; a warning is an error, and so is a figure that differs from its recorded row."""
    session.run("python", "docs/figures.py", "--check")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build")


@nox.session
def demo(session: nox.Session) -> None:
    """Quantize the bundled video model, generate with it, and write the comparison to out/demo/."""
    install(session, "dvdq-eval")
    session.run("dvdq", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All that CI runs: style, docs, what needs several packages, then each package alone."""
    install(session, "dvdq-eval", "test", "lint", "docs", "workspace", "lora", "scale", "cuda")
    check_style(session)
    build_docs(session)
    session.run("pytest", "--numprocesses=auto", "tests")
    interpret_triton(session)
    emulate_cupy(session)
    for alone in ("reference", "kernels", "models", "eval"):
        session.notify(alone)


@nox.session
def reference(session: nox.Session) -> None:
    """The wheel of dvdq-reference with nothing but its declared dependencies."""
    test_alone(session, "dvdq-reference")


@nox.session
def kernels(session: nox.Session) -> None:
    """The wheel of dvdq-kernels with nothing but its declared dependencies."""
    test_alone(session, "dvdq-kernels")


@nox.session
def models(session: nox.Session) -> None:
    """The wheel of dvdq-models with nothing but its declared dependencies."""
    test_alone(session, "dvdq-models", "lora")


@nox.session(name="eval")
def evaluation(session: nox.Session) -> None:
    """The wheel of dvdq-eval with nothing but its declared dependencies."""
    # Nox has a session's temporary files in its environment, where Ray's workers do not start.
    session.env["RAY_TMPDIR"] = tempfile.gettempdir()
    test_alone(session, "dvdq-eval", "scale")


def test_alone(session: nox.Session, package: str, *groups: str) -> None:
    """Test one package's wheel in an environment made for it."""
    install(session, package, "test", *groups)
    session.run("pytest", "--numprocesses=auto", f"packages/{package}/tests", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """Every backend that can run here against the oracle; broken copies of the kernels must fail."""
    install(session, "dvdq-models", "test", "workspace", "cuda")
    session.run("pytest", "--numprocesses=auto", "tests/conformance", "tests/mutants", *session.posargs)
    interpret_triton(session)
    emulate_cupy(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, rules, types and the direction of imports."""
    install(session, "dvdq-eval", "test", "lint", "lora", "scale", "cuda")
    check_style(session)


@nox.session
def docs(session: nox.Session) -> None:
    """Build docs/_build with warnings as errors and run every example of the README and of docs/."""
    install(session, "dvdq-eval", "test", "docs", "workspace", "lora", "scale", "cuda")
    build_docs(session)
    session.run("pytest", "tests/docs")


@nox.session
@nox.parametrize("version", TRITONS)
def tritons(session: nox.Session, version: str) -> None:
    """Triton's kernels compiled for every GPU by each Triton that dvdq-kernels declares; 200 MB each, and no GPU."""
    install(session, "dvdq-kernels", "test")
    session.install("--no-deps", f"triton=={version}")
    session.run("pytest", "--numprocesses=auto", "tests/conformance/test_triton_machine_code.py", *session.posargs)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Each package's tests with the lowest versions that it declares; what follows ``--`` is asked for as well."""
    wheels = build_wheels(session, PACKAGES[-1])
    asked, found = wheels / "asked.in", wheels / "lowest.txt"
    asked.write_text("\n".join(session.posargs) + "\n")
    projects = (f"packages/{name}/pyproject.toml" for name in PACKAGES)
    # Not those of another CUDA, whose CuPy takes the place of the first.
    extras = (f"--extra={name}" for name in ("cpu", "cupy", "lora", "scale"))
    options = ("--resolution=lowest-direct", *extras, "--no-config", "--quiet", f"--find-links={wheels}")
    session.install("--constraint=constraints.txt", "uv")
    session.run("uv", "pip", "compile", *options, f"--output-file={found}", *projects, str(asked))
    tools = nox.project.dependency_groups(PROJECT, "test", "lora", "scale")
    session.install(f"--constraint={found}", f"--find-links={wheels}", "dvdq-eval", *tools)
    session.env["RAY_TMPDIR"] = tempfile.gettempdir()
    session.run("pytest", "--numprocesses=auto", *(f"packages/{name}/tests" for name in PACKAGES))


@nox.session
def release(session: nox.Session) -> None:
    """Build dist/ and check it; date the changelog. ``-- v0.1.0`` wants that version, dated already, as of a tag.

    Then the wheels go into new environments of the oldest and the newest Python.
    """
    session.install(
        "--constraint=constraints.txt", *nox.project.dependency_groups(PROJECT, "release", "test", "workspace")
    )
    dist = Path("dist")
    for old in dist.glob("dvdq_*"):
        old.unlink()
    for name in PACKAGES:
        # The wheel is built from the source distribution: one that lacks a file makes a wheel that lacks it too.
        session.run("python", "-m", "build", "--no-isolation", f"--outdir={dist}", f"packages/{name}")
    session.run("twine", "check", "--strict", *map(str, sorted(dist.glob("dvdq_*"))))
    session.run("pytest", "tests/architecture/test_wheels.py", "--wheels=dist")
    date_changelog(session, *session.posargs)
    for python in (OLDEST, NEWEST):
        session.notify(f"wheels-{python}")


def date_changelog(session: nox.Session, tag: str | None = None) -> None:
    """Give the changelog's section of this version today's date; of a tag it must have one."""
    [first, *_] = Path("dist").glob("dvdq_reference-*.tar.gz")
    version = first.name.removeprefix("dvdq_reference-").removesuffix(".tar.gz")
    if tag is not None and tag != f"v{version}":
        session.error(f"the tag is {tag}, the packages are {version}")
    changelog = Path("CHANGELOG.md")
    found = re.search(rf"^## {re.escape(version)} \((.+)\)$", changelog.read_text(), re.MULTILINE)
    if found is None or (tag is not None and found[1] == "unreleased"):
        session.error(f"CHANGELOG.md has no dated section ## {version}")
    if found[1] == "unreleased":
        heading = f"## {version} ({datetime.now(UTC):%Y-%m-%d})"
        changelog.write_text(changelog.read_text().replace(found[0], heading, 1))
        session.log(f"CHANGELOG.md: {heading}")


@nox.session(python=[OLDEST, NEWEST])
def wheels(session: nox.Session) -> None:
    """What ``nox -s release`` left in dist/, with every extra, in an environment that has nothing else."""
    extras = ("dvdq-kernels[cpu]", "dvdq-kernels[cupy]; sys_platform != 'darwin'", "dvdq-models[lora]")
    session.install("--constraint=constraints.txt", "--find-links=dist", "dvdq-eval[scale]", *extras)
    session.run("python", "-m", "pip", "check")
    session.run("dvdq", "--help", silent=True)
    session.run("dvdq-eval", "--help", silent=True)


@nox.session
def pins(session: nox.Session) -> None:
    """Write constraints.txt: what stands there stays if it can; ``-- --upgrade-package=NAME`` or ``-- --upgrade``."""
    session.install("--constraint=constraints.txt", "uv")
    command = resolution(build_wheels(session, PACKAGES[-1]))
    ours = (f"--no-emit-package={name}" for name in PACKAGES)
    told = ("--no-annotate", "--custom-compile-command=nox -s pins", "--output-file=constraints.txt")
    session.run(*command, *ours, *told, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Append rows of this CPU to benchmarks/results/; ``nox -s bench -- bgr_vs_oracle`` runs one alone."""
    install(session, "dvdq-eval", "bench")
    for name in session.posargs or CPU_BENCHMARKS:
        session.run("python", "-m", "benchmarks", name)


@nox.session
def peers(session: nox.Session) -> None:
    """Other people's packages in environments made for them, on two videos each; ``-- --videos 64`` for all of it."""
    install(session, "dvdq-eval")
    short = ["--videos", "2", "--steps", "4"] if not session.posargs else session.posargs
    session.run("dvdq-eval", "table", "table-1", "comfyui", *short)


@nox.session
def comfy(session: nox.Session) -> None:
    """Our files for ComfyUI, decoded and multiplied on a CPU by the comfy-kitchen that dvdq-eval compares with."""
    install(session, "dvdq-eval", "test")
    ask = "from dvdq_eval.peers.records import COMFY_KITCHEN as peer; print(peer.name, peer.version, sep='==')"
    session.install("--no-deps", str(session.run("python", "-c", ask, silent=True)).strip())
    session.run("pytest", "--numprocesses=auto", "tests/comfy", *session.posargs)


@nox.session(python="3.11")
def vbench(session: nox.Session) -> None:
    """VBench's real code on videos of the bundled model: flickering for true, six dimensions by random judges.

    It makes VBench's environment (1.9 GB) in its own temporary folder. Random judges show that the path is whole.
    """
    install(session, "dvdq-eval", "test")
    folder = Path(session.create_tmp()).resolve() / "vbench"
    session.env.update(
        {
            "OMP_NUM_THREADS": "1",
            "DVDQ_EVAL_CACHE": str(folder / "cache"),
            "VBENCH_CACHE_DIR": str(folder / "weights"),
        }
    )
    dimensions = ("temporal_flickering", "subject_consistency", "aesthetic_quality", "background_consistency",
                  "motion_smoothness", "imaging_quality", "overall_consistency")  # fmt: skip
    videos = ("--method", "dvd-quant:W4A4", "--videos", "2", "--steps", "4", "--store", str(folder / "videos"))
    session.run("dvdq-eval", "vbench", "setup")
    session.run("dvdq-eval", "vbench", "plant", str(folder / "weights"))
    session.run("dvdq-eval", "vbench", "generate", *videos)
    session.run("dvdq-eval", "vbench", "score", *videos, *(f"--dimension={name}" for name in dimensions))
    session.run("dvdq-eval", "vbench", "report", *videos, "--out", str(folder / "report"))
    session.run("pytest", "packages/dvdq-eval/tests/test_vbench_real.py")


@nox.session
def gpu(session: nox.Session) -> None:
    """What there is to know of this GPU: ``benchmarks/gpu_quick.py``, then the long form of all of it.

    What fails or takes too long is named at the end, and the rest runs. Rows of the long form are appended to
    benchmarks/results/, passes of whole models are in out/gpu/; ``-- quick`` ends before it. Where nothing can be
    installed, ``python -m benchmarks gpu_quick`` needs no session.
    """
    install(session, "dvdq-eval", "test", "peers", "cuda", "sanitizer")
    packages = session.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", silent=True)
    tools = Path(str(packages).strip()) / "nvidia/cu13/bin"
    session.env["PATH"] = os.pathsep.join([*(session.bin_paths or ()), str(tools), os.environ["PATH"]])
    bench = ("python", "-m", "benchmarks")
    commands = {
        "gpu_quick": (20, (*bench, "gpu_quick", "--budget=900")),
        "conformance": (30, ("pytest", "tests/conformance", "-k", "not cpu")),
        "mutants": (20, ("pytest", "tests/mutants", "-k", "triton or cupy")),
        **{name: (40, (*bench, name)) for name in GPU_BENCHMARKS},
        "ranking": (1, (*bench, "rank_backends")),
    }
    for model, video in MODELS.items():
        for what in ("latency", "memory"):
            options = (model, f"--video={video}", "--device=cuda", f"--out=out/gpu/{model}-{what}")
            commands[f"{what} of {model}"] = (30, ("dvdq-eval", what, *options))
    failed = []
    for name, (minutes, command) in list(commands.items())[: 1 if "quick" in session.posargs else None]:
        try:
            session.run("timeout", "--kill-after=30", f"{minutes}m", *command, external=True)
        except nox.command.CommandFailed:
            failed.append(name)
    if failed:
        session.error(f"failed or not over in time: {', '.join(failed)}")


if __name__ == "__main__":
    nox.main()
