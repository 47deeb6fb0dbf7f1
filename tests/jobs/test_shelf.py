"""Embeddings that searches' estimates start from: a continued run reads them, bit for bit, and runs what it cannot read."""

import pytest
import torch

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.jobs.steps import shelf as shelves
from headwise.jobs.steps.shelf import Shelf
from headwise.search.anchors import Anchors
from headwise.search.deltas import HeadDeltas

GRID = Grid((4, 4))
HEADS = tuple(GRID)
IMAGES, WIDTH = 6, 5


def mask(*heads: int) -> Mask:
    return Mask.suppress(GRID, [HEADS[number] for number in heads])


SETS = [[mask(0, 1), mask(2, 3)], [mask(0, 1, 4)]]


class Case:
    """Anchors whose masks are run by drawing numbers, which are the mask's own."""

    def __init__(self, folder, key="study"):
        self.ran, self.said = [], []
        self.shelf = Shelf(folder, key, self.said.append)
        g = torch.Generator().manual_seed(0)
        identity, changes = torch.randn(IMAGES, WIDTH, generator=g), torch.randn(8, IMAGES, WIDTH, generator=g)
        deltas = HeadDeltas(GRID, "zero", identity, changes.half(), HEADS)
        self.anchors = Anchors(deltas, self.run, self.shelf)

    def embeddings(self, one: Mask) -> torch.Tensor:
        seed = sum(2 ** HEADS.index(head) for head in one.heads)
        return torch.randn(IMAGES, WIDTH, generator=torch.Generator().manual_seed(seed))

    def run(self, masks):
        self.ran.append(len(masks))
        return [(one, self.embeddings(one)) for one in masks]

    def search(self, observed: bool) -> torch.Tensor:
        for masks in SETS:
            for one in masks if observed else ():
                self.anchors.observe(one, self.embeddings(one))
            self.anchors.keep(masks)
        return self.anchors.embeddings(mask(0, 1, 4, 5))


def test_a_continued_search_runs_no_mask_again(tmp_path):
    first, later = Case(tmp_path), Case(tmp_path)
    expected = first.search(observed=True)
    assert torch.equal(later.search(observed=False), expected)
    assert not first.ran
    assert not later.ran
    later.anchors.keep([mask(5, 6)])
    assert later.ran == [1]


def test_another_study_finds_nothing(tmp_path):
    Case(tmp_path).search(observed=True)
    other = Case(tmp_path, key="other")
    other.search(observed=False)
    assert other.ran == [2, 1]
    assert not other.said


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: data[:-1] + b"\x7f"])
def test_damaged_files_are_said_and_made_again(tmp_path, damage):
    expected = Case(tmp_path).search(observed=True)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, data in before.items():
        path.write_bytes(damage(data))
    later = Case(tmp_path)
    assert torch.equal(later.search(observed=False), expected)
    assert later.ran == [2, 1]
    assert len(later.said) == 2
    assert all("are damaged" in sentence for sentence in later.said)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_beyond_the_room_masks_are_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shelves, "MOST_BYTES", 2 * IMAGES * WIDTH * 2)  # of the first set alone
    expected = Case(tmp_path).search(observed=True)
    later = Case(tmp_path)
    assert torch.equal(later.search(observed=False), expected)
    assert later.ran == [1]
