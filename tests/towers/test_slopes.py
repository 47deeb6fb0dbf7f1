"""First-order scores of every edit against differences of the loss in float64, on several families."""

import numpy as np
import pytest
import torch
from cases import CASES, built
from golden import pictures

from headwise.edits.edit import Edit
from headwise.edits.operators import row_of
from headwise.evaluation.engine import head_means
from headwise.evaluation.layout import Plan
from headwise.scoring.losses import captions
from headwise.search.first_order import edits_of, first_order
from headwise.search.gated import gate_rows, under
from headwise.towers import tower_of
from headwise.towers.base import evaluating, rows

FAMILIES = (
    "hf CLIP",
    "hf SigLIP",
    "open_clip ViT-B-32",
    "open_clip custom block, inner norm",
    "open_clip CoCa",
    "timm qk-norm",
    "timm norm before the projection",
    "timm EVA02, average",
)
MIXES = ("zero", "mean", "uniform", "cls", "self", "cls_row")  # a number from 1 to 0, in which z is linear
STEP = 1e-4


class Setting:
    """A tower in float64 with random images and captions."""

    def __init__(self, name: str):
        assert name in CASES
        self.tower = tower_of(built(name)).cast("cpu", torch.float64)
        self.images = pictures(self.tower).double()
        with evaluating(self.tower.parts), torch.no_grad():
            width = under(self.tower, self.images, [None] * len(self.tower.blocks)).shape[-1]
        texts = torch.randn(6, width, generator=torch.Generator().manual_seed(5)).double()
        self.loss = captions(texts, np.repeat(np.arange(3), 2), 3, loss="softmax", scale=8.0)

    def value(self, e: torch.Tensor) -> float:
        return sum(float(term) for term in self.loss.terms(e, torch.arange(3)))

    def gated(self, letter: str, head, gate: float) -> float:
        """The loss with one head's letter at this number."""
        gates = [torch.ones(block.heads, dtype=torch.float64) for block in self.tower.blocks]
        gates[self.tower.grid.row_of(head)][head.index] = gate
        means = None
        if letter == "mean":
            means = [row.double() for row in head_means(self.tower, self.images, Plan("float32", chunk=2))]
        with evaluating(self.tower.parts), torch.no_grad():
            return self.value(under(self.tower, self.images, gate_rows(self.tower, gates, letter, means)))

    def toward(self, edit: str, head, share: float) -> float:
        """The loss where one head's output is moved this far toward what the edit makes of it."""
        tower = self.tower
        with evaluating(tower.parts), torch.no_grad():
            x = tower.stem(self.images)
            for i, block in enumerate(tower.blocks):
                queries = tower.queries(i)
                q, k, v = block.project(x, queries)
                z = block.attention(q, k, v)
                if i == tower.grid.row_of(head):
                    row = row_of(
                        [Edit.parse(edit if j == head.index else "keep") for j in range(block.heads)], v.shape[-1]
                    )
                    assert row is not None
                    every = block.project(x)[0]
                    other = row.attend(z, q, k, v, block.attention, queries=queries, all_queries=every)
                    z = z + share * (other - z)
                x = block.finish(rows(x, queries), block.settle(z))
            return self.value(tower.pool(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_are_slopes_of_the_loss(name):
    case = Setting(name)
    tower = case.tower
    edits = (*edits_of(tower), f"temperature({1 + STEP})", "temperature(1.2)+scale(0.9)")
    found = first_order(tower, case.images, case.loss, edits, chunk=2)
    assert set(found.scores) >= {"zero", "scale(1.5)", "uniform", "temperature(1.5)"}
    for row in range(len(tower.blocks)):
        head = tower.grid.head(row, tower.blocks[row].heads - 1)
        for edit, scores in found.scores.items():
            assert (head in scores) == (head in tower.able(edit))
        names = [edit for edit in found.scores if head in found.scores[edit]]
        size = max(abs(found.scores[edit][head]) for edit in names)
        for edit in names:
            if edit in MIXES:  # both ways: gates above 1 are allowed where numbers are tensors
                slope = (case.gated(edit, head, 1 + STEP) - case.gated(edit, head, 1 - STEP)) / (2 * STEP)
                assert found.scores[edit][head] == pytest.approx(slope, abs=1e-5 * size), (edit, head)
            elif edit in ("keys", "queries", "temperature(1.5)"):
                slope = (case.toward(edit, head, STEP) - case.toward(edit, head, -STEP)) / (2 * STEP)
                assert found.scores[edit][head] == pytest.approx(-slope, abs=1e-5 * size), (edit, head)
        scale = (case.gated("scale", head, 1 + STEP) - case.gated("scale", head, 1 - STEP)) / (2 * STEP)
        assert found.scores["scale(1.5)"][head] == pytest.approx(-0.5 * scale, abs=1e-5 * size)
        sharp = (case.gated("temperature", head, 1 + STEP) - case.gated("temperature", head, 1 - STEP)) / (2 * STEP)
        near = found.scores[edits[-2]][head] / STEP
        assert near == pytest.approx(-sharp, abs=1e-3 * max(size, abs(sharp)))
