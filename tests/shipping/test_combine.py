"""Edits combined: votes and weighted sums, by hand and by what they do to a head's output."""

import pytest
import torch

from headwise.edits.arrays import Array
from headwise.edits.edit import Edit, Letter
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.edits.operators import row_of
from headwise.errors import HeadwiseError
from headwise.shipping.combine import vote, weighted

GRID = Grid((2, 3))


def test_vote():
    texts = ("L0.H0=zero, L1.H2=zero", "L0.H0=scale(0.5), L1.H1=zero", "L1.H1=zero, L1.H2=scale(0.2)")
    masks = [Mask.parse(GRID, text) for text in texts]
    assert str(vote(masks)) == "L0.H0=scale(0.25), L1.H1=zero, L1.H2=scale(0.1)"
    assert vote(masks, 3).is_identity
    assert set(vote(masks, 1).heads) == set((masks[0] | masks[1] | masks[2]).heads)
    assert vote(masks).provenance["found_by"] == "vote of 3, at least 2"


def drawn(name: str, generator: torch.Generator, number: float | None) -> Edit:
    arrays = {"mean": ("constant",), "shift": ("constant",), "scale": ()}[name]
    return Edit(value=Letter(name, number, tuple((a, Array.of(torch.randn(4, generator=generator))) for a in arrays)))


@pytest.mark.parametrize("name", ["scale", "mean", "shift"])
def test_weighted_is_the_weighted_sum_of_outputs(name):
    """Other numbers and other constants in each, and heads that one of them keeps."""
    generator = torch.Generator().manual_seed(0)
    one = Mask.of(GRID, {"L0.H0": drawn(name, generator, 0.0), "L1.H0": drawn(name, generator, 0.5)})
    two = Mask.of(GRID, {"L0.H0": drawn(name, generator, 0.2), "L1.H1": drawn(name, generator, 0.0)})
    both = weighted([one, two], [3, 1])
    z = torch.randn(2, 3, 5, 4)
    for row in range(2):
        part = z[:, : GRID.rows[row]]

        def out(mask, part=part, row=row):
            edits = row_of(mask.table[row], 4)
            return part if edits is None else edits.emit(part)

        torch.testing.assert_close(out(both), 0.75 * out(one) + 0.25 * out(two))


def test_weighted_values_of_spectral_and_temperature():
    axes = {"axes": Array.of(torch.eye(4)), "centre": Array.of([0.0, 1, 0, 0])}

    def spectral(*scales):
        arrays = (("axes", axes["axes"]), ("scales", Array.of(scales)), ("centre", axes["centre"]))
        return Edit(Letter("temperature", 0.5), Letter("spectral", None, arrays))

    both = weighted([Mask.of(GRID, {"L0.H0": spectral(0, 1, 2, 1)}), Mask.of(GRID, {"L0.H0": spectral(1, 1, 1, 0)})])
    edit = both.edit("L0.H0")
    assert edit.value is not None
    assert edit.attention is not None
    assert edit.value.array("scales").numpy().tolist() == [0.5, 1, 1.5, 0.5]
    assert edit.attention.number == 0.5
    assert weighted([both, Mask.identity(GRID)]).edit("L0.H0").attention == Letter("temperature", 0.75)


def test_what_cannot_be_combined():
    one, two = Mask.parse(GRID, "L0.H0=zero"), Mask.parse(GRID, "L0.H0=mean")
    for call, words in (
        (lambda: vote([]), "no edits"),
        (lambda: vote([one, two], 1), "L0.H0 have no mean: mean, zero"),
        (lambda: vote([one], 2), "2 of 1 votes"),
        (lambda: weighted([one, one], [1.0]), "a weight"),
        (lambda: weighted([one, one], [0.0, 0.0]), "a weight"),
        (lambda: vote([one, Mask.identity(Grid((2, 2)))]), "several grids"),
    ):
        with pytest.raises(HeadwiseError, match=words):
            call()
