"""Masks one after the other, each run from the first block that it changes: the same embeddings as from the pixels."""

import pytest
import torch

from headwise.edits.arrays import Array
from headwise.edits.edit import Edit, Letter
from headwise.edits.mask import Mask
from headwise.evaluation.engine import embed, head_means, with_means
from headwise.evaluation.layout import Plan
from headwise.evaluation.streams import Stale, Streams

LAYOUT = Plan(chunk=4)


def direct(tower, images, mask) -> torch.Tensor:
    return next(iter(embed(tower, images, [mask], LAYOUT)))[1]


def live(streams, mask) -> torch.Tensor:
    return torch.cat([e for _, e in streams.embed(mask)])


@pytest.fixture
def run_blocks(tower):
    """The rows that were run since it was last cleared."""
    seen: list[int] = []
    for row, block in enumerate(tower.blocks):
        own = block.run
        object.__setattr__(block, "run", lambda x, e, q, own=own, row=row: (seen.append(row), own(x, e, q))[1])
    yield seen
    for block in tower.blocks:
        object.__delattr__(block, "run")


SPECTRAL = Edit(
    value=Letter(
        "spectral",
        arrays=(
            ("axes", Array.of(torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0])),
            ("scales", Array.of(torch.linspace(0, 2, 16))),
            ("centre", Array.of(torch.ones(16) / 8)),
        ),
    )
)
SHIFT = Edit.parse("uniform(0.5)").attention, Letter("shift", 0.5, (("constant", Array.of(torch.arange(16.0) / 9)),))
SOFT = {"zero": "scale(0.3)", "uniform": "uniform(0.3)", "cls": "cls(0.3)", "self": "self(0.3)"}
SOFT |= {"cls_row": "cls_row(0.3)", "temperature(0.5)": "temperature(1.7)", "keys": "queries"}
SOFT |= {"temperature(2)+scale(1.4)": "keys+cls_row"}


@pytest.mark.parametrize("edits", [*SOFT.items(), (SPECTRAL, Edit(*SHIFT))], ids=lambda pair: str(pair[0]))
def test_every_click_gives_what_a_run_from_the_pixels_gives(tower, images, edits):
    streams = Streams(tower, images, LAYOUT)
    assert torch.allclose(streams.begin(), direct(tower, images, Mask.identity(tower.grid)), atol=1e-6)
    clicks = (["L2.H1"], ["L2.H1", "L0.H3"], ["L0.H3"], ["L0.H3", "L1.H0"], [], ["L1.H0", "L2.H2"])
    for heads in clicks:
        for edit in edits:
            mask = Mask.suppress(tower.grid, heads, edit)
            assert torch.allclose(live(streams, mask), direct(tower, images, mask), atol=1e-6), (heads, edit)


def test_means_are_those_of_a_pass_of_its_own(tower, images):
    streams = Streams(tower, images, LAYOUT)
    streams.begin()
    expected = head_means(tower, images, LAYOUT)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(streams.means, expected, strict=True))
    mask = Mask.suppress(tower.grid, ["L1.H1"], "mean")
    assert torch.allclose(live(streams, mask), direct(tower, images, with_means(mask, expected)), atol=1e-6)


def test_only_blocks_from_the_touched_one_on_run(tower, images, run_blocks):
    streams = Streams(tower, images, LAYOUT)
    streams.begin()
    chunks = len(streams.chunks)
    clicks = (
        (["L2.H0"], [2]),
        (["L2.H0", "L1.H1"], [1, 2]),
        (["L2.H1", "L1.H1"], [2]),  # the last mask's streams before block 2
        (["L2.H1"], [2]),  # the unchanged tower's
        (["L0.H0"], [0, 1, 2]),
        (["L0.H0", "L2.H0"], [2]),
        (["L1.H1", "L2.H3"], [1, 2]),
    )
    for heads, rows in clicks:
        run_blocks.clear()
        live(streams, Mask.suppress(tower.grid, heads))
        assert run_blocks == rows * chunks, heads
    run_blocks.clear()
    live(streams, Mask.suppress(tower.grid, ["L0.H0", "L2.H0"]))  # asked for before
    assert run_blocks == []


def test_without_room_for_streams_all_is_run_and_right(tower, images, run_blocks):
    one = 17 * 64 * 4 * len(images)  # bytes of one block's streams: 17 tokens, 64 wide
    for room, first in ((0, 0), (one, 2), (2 * one, 2)):
        streams = Streams(tower, images, LAYOUT, room=room)
        streams.begin()
        run_blocks.clear()
        mask = Mask.suppress(tower.grid, ["L2.H0"])
        found = live(streams, mask)
        assert run_blocks[0] == first
        assert torch.allclose(found, direct(tower, images, mask), atol=1e-6)


def test_a_click_that_nobody_waits_for_ends_and_spoils_nothing(tower, images):
    streams = Streams(tower, images, LAYOUT)
    streams.begin()
    asked = iter([True] * 4 + [False] * 100)
    old, new = Mask.suppress(tower.grid, ["L0.H0"]), Mask.suppress(tower.grid, ["L1.H0"])
    with pytest.raises(Stale):
        list(streams.embed(old, lambda: next(asked)))
    assert torch.allclose(live(streams, new), direct(tower, images, new), atol=1e-6)
    assert torch.allclose(live(streams, old), direct(tower, images, old), atol=1e-6)
