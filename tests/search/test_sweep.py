import pytest
from synthetic import Counting, Landscape, bits, score

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.search.sweep import sweep

GRID = Grid((2, 3), pool=2)


def test_sweep_evaluates_identity_and_every_head_in_one_call():
    evaluate = Counting(Landscape(GRID))
    found = sweep(evaluate, GRID, "uniform")
    assert len(evaluate.calls) == 1
    assert {str(mask) for mask in evaluate.asked} == {"identity", *(f"{head}=uniform" for head in GRID)}
    assert [effect.head for effect in found.heads] == list(GRID)
    assert found.heads[-1].head == Head.parse("pool.H1")


def test_deltas_are_differences_to_identity_and_rank_the_heads():
    gains = [0.0, -0.1, 0.2, 0.0, -0.3, 0.1, 0.0]
    found = sweep(Counting(lambda mask: 0.5 + float(bits(mask) @ gains)), GRID, "zero")
    assert [effect.delta for effect in found.heads] == pytest.approx(gains)
    assert [str(head) for head in found.ranking] == ["L1.H0", "pool.H0", "L0.H0", "L1.H1", "pool.H1", "L0.H1", "L1.H2"]
    assert [str(head) for head in found.improving] == ["L1.H0", "pool.H0"]
    assert found.best.mask == Mask.suppress(GRID, ["L1.H0"])


def test_loss_breaks_ties_of_fitness():
    class Losses(Counting):
        def __call__(self, masks):
            return [score(0.5, loss=1.0 - 0.1 * sum(head.index for head in mask.heads)) for mask in masks]

    found = sweep(Losses(lambda mask: 0.5), Grid((3,)), "zero")
    assert [head.index for head in found.ranking] == [2, 1, 0]
    assert [head.index for head in found.improving] == [2, 1]
    assert [effect.loss_delta for effect in found.heads] == pytest.approx([0, -0.1, -0.2])
