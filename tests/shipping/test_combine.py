"""Masks combined: votes and weighted sums, by hand and by what they do to a head's output."""

import pytest
import torch

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.edits.operators import suppress
from headwise.errors import HeadwiseError
from headwise.shipping.combine import vote, weighted
from headwise.towers.fits import mean_tensor

GRID = Grid((2, 3))


def test_vote():
    masks = [Mask.parse(GRID, text) for text in ("zero:L0.H0,L1.H2", "zero:L0.H0=0.5,L1.H1", "zero:L1.H1,L1.H2=0.2")]
    assert str(vote(masks)) == "zero:L0.H0=0.25,L1.H1,L1.H2=0.1"
    assert vote(masks, 3).is_identity
    assert set(vote(masks, 1).heads) == set((masks[0] | masks[1] | masks[2]).heads)
    assert vote(masks).provenance["found_by"] == "vote of 3, at least 2"


def test_weighted_is_the_weighted_sum_of_outputs():
    """Operator mean, with other gates and other constants in each mask."""
    heads = list(GRID)
    generator = torch.Generator().manual_seed(0)

    def constants(*chosen):
        return tuple((head, tuple(torch.randn(4, generator=generator).tolist())) for head in chosen)

    one = Mask(GRID, ((0.0, 1.0), (0.5, 1.0, 1.0)), "mean", constants(heads[0], heads[2]))
    two = Mask(GRID, ((0.2, 1.0), (1.0, 0.0, 1.0)), "mean", constants(heads[0], heads[3]))
    both = weighted([one, two], [3, 1])
    z, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    for row in range(2):
        part, values = z[:, : GRID.rows[row]], v[:, : GRID.rows[row]]

        def out(mask, part=part, values=values, row=row):
            return suppress("mean", part, values, torch.tensor(mask.gates[row]), mean=mean_tensor(mask, row, 4))

        torch.testing.assert_close(out(both), 0.75 * out(one) + 0.25 * out(two))


def test_what_cannot_be_combined():
    one, two = Mask.parse(GRID, "zero:L0.H0"), Mask.parse(GRID, "uniform:L0.H0")
    for call, words in (
        (lambda: vote([]), "no masks"),
        (lambda: vote([one, two]), "several operators"),
        (lambda: vote([one], 2), "2 of 1 votes"),
        (lambda: weighted([one, one], [1.0]), "a weight"),
        (lambda: weighted([one, one], [0.0, 0.0]), "a weight"),
        (lambda: vote([one, Mask.identity(Grid((2, 2)))]), "several grids"),
    ):
        with pytest.raises(HeadwiseError, match=words):
            call()
