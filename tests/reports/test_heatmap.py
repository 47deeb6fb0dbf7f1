"""The heat map is deterministic, honest about 0, and readable for every grid."""

import io
import random

import numpy as np
import pytest
from PIL import Image
from sample_results import RESULTS, nothing_found

from headwise.edits.heads import Grid, Head
from headwise.errors import HeadwiseError
from headwise.reports.heatmap import heat_map, heatmap_png, scale


def effects(grid: Grid, seed: int = 0) -> dict[Head, float]:
    rng = random.Random(seed)
    return {head: rng.gauss(-0.003, 0.006) for head in grid}


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "grid",
    [Grid((6,) * 6), Grid((12,) * 12), Grid((16,) * 24), Grid((16,) * 32), Grid((3, 6, 2), pool=8), Grid((2,))],
    ids=str,
)
def test_every_grid_is_drawn_and_the_bytes_repeat(grid):
    values = effects(grid)
    png = heat_map({"zero": values}, grid, chosen={"zero": list(values)[:2]})
    assert png == heat_map({"zero": dict(values)}, grid, chosen={"zero": list(values)[:2]})
    assert len(png) < 400_000
    height, width, _ = picture(png).shape
    assert height > 100 + 40 * len(grid.rows)  # a cell never gets too small to see
    assert width > 40 * max(grid.rows)


def test_several_operators_are_several_panels():
    grid = Grid((6,) * 6)
    one = heat_map({"zero": effects(grid)}, grid)
    three = heat_map({op: effects(grid, i) for i, op in enumerate(("zero", "mean", "uniform"))}, grid)
    assert picture(three).shape[1] > 2 * picture(one).shape[1]


def test_gains_are_purple_losses_are_orange_and_nothing_is_white():
    grid = Grid((3,))
    image = picture(heat_map({"zero": {Head(0, 0): 0.02, Head(0, 1): 0.0, Head(0, 2): -0.02}}, grid))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    large = [tuple(colour) for colour, count in zip(colours, counts, strict=True) if count > 3000]
    purple = [c for c in large if c[2] > c[1] + 30]
    orange = [c for c in large if c[0] > c[2] + 60]
    neutral = [c for c in large if min(c) > 240 and c != (255, 255, 255)]
    assert len(purple) == len(orange) == len(neutral) == 1


def test_the_outline_marks_the_chosen_head_alone():
    grid = Grid((4, 4))
    values = effects(grid)
    plain = picture(heat_map({"zero": values}, grid, chosen={"zero": [Head(0, 0)]}))
    other = picture(heat_map({"zero": values}, grid, chosen={"zero": [Head(1, 3)]}))
    rows, columns = np.nonzero((plain != other).any(-1))
    top, bottom = rows < np.median(rows), rows > np.median(rows)
    assert columns[top].max() < columns[bottom].min()  # up left and down right differ, nothing between


def test_the_scale_is_symmetric_keeps_every_gain_and_says_what_lies_beyond():
    assert scale([0.2, -0.4, 1.0]) == (1.0, "neither")
    limit, extend = scale([0.3] * 5 + [-0.5] * 94 + [-9.0])
    assert (limit, extend) == (0.5, "min")
    assert scale([0.0, 0.0]) == (0.1, "neither")
    assert scale([-3.0, float("nan")]) == (3.0, "neither")


def test_results_are_drawn_with_and_without_a_choice():
    assert heatmap_png(RESULTS) == heatmap_png(RESULTS)
    assert heatmap_png(RESULTS) != heatmap_png(nothing_found())
    assert heatmap_png({"model": RESULTS["model"], "sweep": RESULTS["sweep"][:1]})


def test_bad_results_are_clear_errors():
    with pytest.raises(HeadwiseError, match="no sweep to draw"):
        heatmap_png({**RESULTS, "sweep": []})
    with pytest.raises(HeadwiseError, match="'sweep'"):
        heatmap_png({"model": RESULTS["model"]})
    with pytest.raises(HeadwiseError, match=r"L5\.H0 does not exist"):
        heatmap_png({**RESULTS, "model": {**RESULTS["model"], "layers": [6] * 5}})
    with pytest.raises(HeadwiseError, match="no sweep to draw"):
        heat_map({"zero": {}}, Grid((2, 2)))
