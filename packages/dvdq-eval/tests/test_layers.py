"""Synthetic layers: their distributions, the errors of recipes on them, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from dvdq_eval.cli import layers as command
from dvdq_eval.cli import main
from dvdq_eval.layers.check import check_layers
from dvdq_eval.layers.recipes import RECIPES, SHAPES, VARIANTS, Shape
from dvdq_eval.layers.results import LayerRow, LayerTable, Range, layer_sheet
from dvdq_eval.layers.synthetic import GAUSSIAN_MEDIAN, KINDS, MASSIVE_RATIOS, Sample, draw_samples, draw_weight
from dvdq_eval.records import to_json, write_record
from dvdq_eval.report.write import write_report
from dvdq_eval.sheets import markdown
from dvdq_kernels import rotate
from dvdq_models.layers.encoding import encode_weight
from dvdq_reference.oracle import affine, bounds, linear, packing
from dvdq_reference.spec.bits import code_offset
from dvdq_reference.spec.errors import DvdqError
from dvdq_reference.spec.quantized import bits_per_weight
from dvdq_reference.spec.recipe import ActivationRule, Recipe, Rotation, WeightRule

SMALL = Shape("small", 96, 512)
WIDE = Shape("wide", 64, 3072)
TOKENS, SEED = 64, 3


def sample_of(kind: str, shape: Shape = WIDE, seed: int = SEED) -> Sample:
    samples = draw_samples(shape, draw_weight(shape), {kind: KINDS[kind]}, TOKENS, [seed])
    return samples[kind, seed]


def values(kind: str) -> NDArray[np.float64]:
    return sample_of(kind).x.double().numpy()


def errors(table: LayerTable, kind: str, recipe: str) -> dict[str, Range]:
    [row] = [row for row in table.rows if (row.kind, row.recipe) == (kind, recipe)]
    return dict(row.errors)


def test_weights_have_unit_gain_and_the_tails_of_student_t() -> None:
    weight = draw_weight(WIDE).double().numpy() * math.sqrt(WIDE.in_features)
    n = weight.size
    # |t| / √2 has the median 0.5237 and there the density f = 0.769; a median has a standard error of 1 / (2 f √n).
    assert np.median(np.abs(weight)) == pytest.approx(0.5237, abs=5 / (2 * 0.769 * math.sqrt(n)))
    # P(|t| > 5√2) = 0.00211, of a normal 6e-7. Five standard errors of a count.
    beyond = int((np.abs(weight) > 5).sum())
    assert beyond == pytest.approx(0.00211 * n, abs=5 * math.sqrt(0.00211 * n))


def test_spread_leaves_the_mean_square() -> None:
    plain, spread = (draw_weight(WIDE, spread).double().square().mean(dim=0) for spread in (0.0, 0.5))
    assert float(spread.log().std()) > 2 * float(plain.log().std())
    # The mean of e_j² = exp(2(σN - σ²)), whose deviation is √(exp(4σ²) - 1), over 3072 channels; five standard errors.
    assert float(spread.sum() / plain.sum()) == pytest.approx(1.0, abs=5 * math.sqrt((math.e - 1) / WIDE.in_features))


def test_massive_values_have_the_stated_ratio() -> None:
    x = np.abs(values("massive outliers"))
    massive = x > 100
    assert sorted(massive.sum(axis=1)) == [0] * (TOKENS - 1) + [2]
    # The median of |Z| over n values has a relative standard error of 1 / (2 f m √n), f = 0.6355 and m the median.
    slack = 5 / (2 * 0.6355 * GAUSSIAN_MEDIAN * math.sqrt(x.size))
    ratios = x[massive] / np.median(x[~massive])
    assert MASSIVE_RATIOS[0] * (1 - slack) <= ratios.min() <= ratios.max() <= MASSIVE_RATIOS[1] * (1 + slack)


def test_outlier_channels_persist_from_one_sample_to_another() -> None:
    sample = sample_of("channel outliers")
    size = sample.x.double().square().mean(dim=0).sqrt()
    large = size > 5
    assert int(large.sum()) == 15  # 0.5 % of 3072
    # A root mean square of 64 normals has a relative standard error of 1 / √128.
    slack = 5 / math.sqrt(2 * TOKENS)
    assert 20 * (1 - slack) < float(size[large].min())
    assert float(size[large].max()) < 60 * (1 + slack)
    assert set(sample.maxima.topk(15).indices.tolist()) == set(large.nonzero().flatten().tolist())


def test_an_unsigned_hadamard_matrix_gathers_the_mean_that_gelu_leaves() -> None:
    x = sample_of("after GELU").x
    assert float(x.min()) > -0.17
    assert float(x.mean().square() / x.square().mean()) == pytest.approx(0.16, abs=0.01)

    def peak(rotation: Rotation) -> float:
        size = rotate(x, rotation).square().mean(dim=0).sqrt()
        return float(size.max() / size.median())

    assert peak(Rotation("full")) > 10
    assert peak(Rotation("full", seed=0)) < 3


@pytest.mark.parametrize("kind", KINDS)
def test_calibration_sees_other_tokens(kind: str) -> None:
    sample = sample_of(kind)
    seen = sample.x.abs().amax(dim=0)
    # Maxima over 64 and over 256 other tokens: alike in size, and hardly one the same.
    assert int((seen == sample.maxima).sum()) <= 1
    missed = float((seen > sample.maxima).float().mean())
    assert 0.1 < missed < 0.3  # 64 of 320 tokens have the largest value of a channel once in five times


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_without_data_is_what_tokens_have(kind: str) -> None:
    """But for massive ones, which no weight knows of."""
    rng = np.random.default_rng(0)
    layer = KINDS[kind](256, rng)
    x = layer.sample(4000, rng).astype(np.float64)
    usual = x[np.abs(x).max(axis=1) < 100 * GAUSSIAN_MEDIAN] if kind == "massive outliers" else x
    # The mean square of 4000 values of kurtosis up to 6, a ReLU's, which GELU comes near to; five standard errors.
    slack = 5 * math.sqrt((6 - 1) / 4000)
    np.testing.assert_allclose((usual**2).mean(axis=0), layer.known.astype(np.float64) ** 2, rtol=slack)


def test_a_sample_does_not_depend_on_the_others() -> None:
    weight = draw_weight(SMALL)
    together = draw_samples(SMALL, weight, KINDS, 8, [0, 1])
    assert list(together) == [(kind, seed) for kind in KINDS for seed in (0, 1)]
    alone = draw_samples(SMALL, weight, {"after GELU": KINDS["after GELU"]}, 8, [1])["after GELU", 1]
    assert torch.equal(alone.x, together["after GELU", 1].x)
    assert torch.equal(alone.maxima, together["after GELU", 1].maxima)
    assert not torch.equal(together["after GELU", 0].x, together["after GELU", 1].x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", RECIPES)
def test_the_error_is_the_oracles(label: str, kind: str) -> None:
    recipe, tokens = RECIPES[label], 8
    table = check_layers({label: recipe}, shapes=[SMALL], kinds={kind: KINDS[kind]}, tokens=tokens, seeds=[SEED])
    found = errors(table, kind, label)
    weight = draw_weight(SMALL)
    sample = draw_samples(SMALL, weight, {kind: KINDS[kind]}, tokens, [SEED])[kind, SEED]
    stored = encode_weight(weight, recipe, sample.maxima if recipe.smooths_by_maxima else sample.known)
    codes = packing.unpack(stored["qweight"].numpy(), 4, SMALL.in_features)
    scale = stored["scale"].double().numpy()
    zero = stored["zero"].numpy() if "zero" in stored else np.full(scale.shape, code_offset(4))
    grid = affine.Grid(scale, zero.astype(np.int64), 4)
    x = (sample.x / stored.get("smoothing", torch.ones(()))).double().numpy()
    wide, exact_weight = sample.x.double().numpy(), weight.double().numpy()
    exact = wide @ exact_weight.T
    # What is exact here and there is a float64 product, and the norms are float64 sums.
    terms = 2 * SMALL.in_features + exact.size
    doubles = bounds.gamma(terms, 2.0**-53) * np.linalg.norm(np.abs(wide) @ np.abs(exact_weight).T)
    for bits in (16, 8, 4):
        rule = None if bits == 16 else dataclasses.replace(recipe.activation, bits=bits)
        truth = linear.quantized_linear(x, codes, grid, rule, rotation=recipe.rotation)
        allowed = bounds.linear_float32(x, codes, grid, rule, rotation=recipe.rotation)
        allowed += np.finfo(np.float32).eps * (np.abs(truth) + allowed)
        expected = np.linalg.norm(truth - exact) / np.linalg.norm(exact)
        slack = (np.linalg.norm(allowed) + doubles) / np.linalg.norm(exact)
        assert slack < 0.1 * expected  # mostly codes so near a tie that float32 may round them the other way
        assert found[f"W4A{bits}"].mean == pytest.approx(expected, abs=slack)


def test_a_smoothing_recipe_knows_the_calibration_sample_alone() -> None:
    recipe = Recipe.named("smoothquant")
    kinds = {"massive outliers": KINDS["massive outliers"]}
    weight = draw_weight(SMALL)
    sample = draw_samples(SMALL, weight, kinds, 8, [SEED])["massive outliers", SEED]
    table = check_layers({"smoothquant": recipe}, shapes=[SMALL], kinds=kinds, tokens=8, seeds=[SEED], widths=[])
    found = errors(table, "massive outliers", "smoothquant")["W4A16"].mean

    def error(maxima: torch.Tensor) -> float:
        stored = encode_weight(weight, recipe, maxima)
        codes = packing.unpack(stored["qweight"].numpy(), 4, SMALL.in_features)
        grid = affine.Grid(stored["scale"].double().numpy(), stored["zero"].numpy().astype(np.int64), 4)
        output = (sample.x / stored["smoothing"]).double().numpy() @ affine.dequantize(codes, grid).T
        exact = sample.exact.numpy()
        return float(np.linalg.norm(output - exact) / np.linalg.norm(exact))

    # A float32 product of 512 terms, relative to an error of a tenth and more.
    assert found == pytest.approx(error(sample.maxima), rel=1e-3)
    assert found != pytest.approx(error(sample.x.abs().amax(dim=0)), rel=1e-2)


def test_more_bits_err_less() -> None:
    recipes = {
        f"{name} {bits}": Recipe.named(name, bits) for name in ("minmax", "dvd-quant") for bits in ("W4A8", "W8A8")
    }
    table = check_layers(recipes, shapes=[SMALL], seeds=[0, 1], tokens=16)
    for kind in KINDS:
        for name in ("minmax", "dvd-quant"):
            narrow, wide = errors(table, kind, f"{name} W4A8"), errors(table, kind, f"{name} W8A8")
            # Sixteen times the levels in the weight; at least three times less error, in the worst seed.
            assert wide["W8A8"].high < narrow["W4A8"].low / 3
            assert narrow["W4A16"].mean < narrow["W4A4"].mean
            assert narrow["W4A8"].mean < narrow["W4A4"].mean


@pytest.mark.parametrize(("kind", "share"), [("channel outliers", 1 / 2), ("massive outliers", 2 / 3)])
def test_dvd_quant_withstands_outliers_at_four_bits(kind: str, share: float) -> None:
    """On 3072 channels its largest error over seeds is below a half, or two thirds, of min-max's smallest."""
    recipes = {name: Recipe.named(name) for name in ("minmax", "dvd-quant")}
    table = check_layers(recipes, shapes=[WIDE], kinds={kind: KINDS[kind]}, tokens=TOKENS)
    ours, minmax = errors(table, kind, "dvd-quant"), errors(table, kind, "minmax")
    assert ours["W4A4"].high < share * minmax["W4A4"].low


def test_recipes_that_share_a_weight_are_measured_as_if_alone() -> None:
    recipes = {"dvd-quant": RECIPES["DVD-Quant"], "clip": VARIANTS["DVD-Quant, Gaussian clip"]}
    options: dict[str, Any] = {"shapes": [SMALL], "tokens": 8, "seeds": [0]}
    together = check_layers(recipes, **options)
    for label, recipe in recipes.items():
        alone = check_layers({label: recipe}, **options)
        for kind in KINDS:
            assert errors(alone, kind, label) == errors(together, kind, label)


def untimed(table: LayerTable) -> tuple[LayerRow, ...]:
    return tuple(dataclasses.replace(row, quantize_seconds=0.0) for row in table.rows)


def test_a_seed_gives_the_same_table() -> None:
    told: list[tuple[str, int, int]] = []
    recipes = {"quarot": RECIPES["QuaRot"], "vidit-q": RECIPES["ViDiT-Q"]}

    def check(seeds: list[int]) -> LayerTable:
        return check_layers(
            recipes, shapes=[SMALL], tokens=4, seeds=seeds, tell=lambda *progress: told.append(progress)
        )

    table = check([0, 1])
    assert told == [("small 96×512", done, 2) for done in range(3)]
    assert untimed(table) == untimed(check([0, 1]))
    assert untimed(table) != untimed(check([2, 3]))
    assert [(row.kind, row.recipe) for row in table.rows] == [(kind, label) for kind in KINDS for label in recipes]
    for row in table.rows:
        assert list(row.errors) == ["W4A16", "W4A8", "W4A4"]
        assert all(0 < error.low <= error.mean <= error.high < 1 for error in row.errors.values())
        recipe = recipes[row.recipe]
        assert row.bits_per_weight == bits_per_weight(96, 512, recipe.weight, recipe.smoothing)


def test_json_says_how_to_repeat_it() -> None:
    recipes = {"minmax": RECIPES["MinMax"]}
    table = check_layers(recipes, shapes=[SMALL], tokens=4, seeds=[7], spread=0.25)
    values = json.loads(to_json(table), parse_constant=pytest.fail)
    assert (values["seeds"], values["tokens"], values["spread"]) == ([7], 4, 0.25)
    assert Recipe.from_dict(values["recipes"]["minmax"]) == recipes["minmax"]
    assert len(values["rows"]) == len(KINDS)
    assert values["provenance"]["processor"]
    assert values["rows"][0]["errors"]["W4A4"]["mean"] == table.rows[0].errors["W4A4"].mean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"widths": [9]}, "bits"),
        ({"spread": -0.1}, "spread"),
        ({"spread": math.nan}, "spread"),
        ({"shapes": []}, "shapes"),
        ({"kinds": {}}, "kinds"),
        ({"shapes": [Shape("odd", 8, 92)]}, "odd 8×92, signs: expected channels"),
        ({"shapes": [Shape("thin", 8, 2)]}, "at least"),
    ],
)
def test_bad_input_is_named_before_anything_is_drawn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DvdqError, match=message):
        check_layers({"signs": RECIPES["QuaRot"]}, tell=pytest.fail, **options)


def test_a_recipe_that_does_not_fit_is_named() -> None:
    recipes = {
        "group": Recipe.named("minmax", weight=WeightRule(4, "minmax", 100)),
        "block": Recipe.named("minmax", activation=ActivationRule(8, 100)),
        "fed": Recipe.named("minmax").with_feedback(),
    }
    for label, recipe in recipes.items():
        with pytest.raises(DvdqError, match=f"small 96×512, {label}"):
            check_layers({label: recipe}, shapes=[SMALL], tell=pytest.fail)
    with pytest.raises(DvdqError, match="recipes"):
        check_layers({}, shapes=[SMALL])


def test_every_recipe_fits_every_shape() -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        check_layers({**RECIPES, **VARIANTS}, shapes=SHAPES, tell=stop)


def test_every_recipe_is_checked() -> None:
    options: dict[str, Any] = {"shapes": [SMALL], "kinds": {"gaussian": KINDS["gaussian"]}, "tokens": 2, "seeds": [0]}
    table = check_layers({**RECIPES, **VARIANTS}, **options)
    assert [row.recipe for row in table.rows] == [*RECIPES, *VARIANTS]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(command, "QUICK_SHAPES", (SMALL,))
    built = typer.Typer()
    built.command("layers")(command.layers)
    return built


def test_the_command_prints_a_table_and_writes_json(app: typer.Typer, tmp_path: Path) -> None:
    out = tmp_path / "new" / "layers.json"
    done = CliRunner().invoke(app, ["--quick", "--seeds", "2", "--tokens", "4", "--out", str(out)])
    assert done.exit_code == 0, done.output
    values = json.loads(out.read_text(encoding="utf-8"))
    assert (values["seeds"], values["tokens"]) == ([0, 1], 4)
    assert len(values["rows"]) == len(KINDS) * len(RECIPES)
    words = [word for label in RECIPES for word in label.split()]
    headings = [word for kind in KINDS for word in kind.split()]
    for word in (*headings, *words, "W4A8 / W4A4", str(out)):
        assert word in done.stdout
    assert "…" not in done.stdout  # 80 columns are enough
    assert "| MinMax | 4." in out.with_suffix(".md").read_text(encoding="utf-8")


def test_a_sheet_has_the_means_and_a_page_what_they_are_between(tmp_path: Path) -> None:
    recipes = {label: RECIPES[label] for label in ("MinMax", "DVD-Quant")}
    table = check_layers(recipes, shapes=[SMALL, WIDE], kinds={"after GELU": KINDS["after GELU"]}, tokens=4, seeds=[0])
    ours = [row for row in table.rows if row.recipe == "DVD-Quant"]
    means, ends = {}, {}
    for bits in ("W4A16", "W4A8", "W4A4"):
        found = [100 * row.errors[bits].mean for row in ours]
        means[bits], ends[bits] = f"{sum(found) / 2:.1f}", f"{min(found):.1f}–{max(found):.1f}"
    text = markdown(layer_sheet(table)).splitlines()[-1]
    assert text.endswith(f" | {means['W4A8']} / {means['W4A4']} |")
    write_record(tmp_path / "layers.json", table)
    page = write_report([tmp_path], tmp_path / "report.html", tell=lambda *what: None).read_text(encoding="utf-8")
    for shown in (f"{means['W4A8']} / {means['W4A4']}", means["W4A16"], f"{ends['W4A8']} / {ends['W4A4']}"):
        assert shown in page
    assert "Layers of full size" in page
    assert 'class="best"' in page


def test_the_command_refuses_a_folder(app: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--quick", "--out", str(tmp_path)])
    assert isinstance(done.exception, DvdqError)
    assert "layers: " in str(done.exception)


def test_what_the_system_refuses_ends_the_command_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "layers.json"
    monkeypatch.setattr(sys, "argv", ["dvdq-eval", "layers", "--quick", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(str(out.parent))
