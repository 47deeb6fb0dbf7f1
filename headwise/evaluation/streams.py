"""One mask after another on the same images, as a person clicks: each runs from the first block that it changes.

    stream[b] = x before block b, which depends on the mask's rows before b alone       e = pool(x after the last block)

In: a tower, pixels, one mask at a time. Out: its embeddings, chunk by chunk of images. Streams of the unchanged tower and
of the last mask are kept within a room of so many bytes, the unchanged tower's before the others, the last blocks' first.
Whoever asks may stop in between; what was done stays done. It does not know what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from headwise.edits.edit import Edit
from headwise.edits.mask import Mask
from headwise.edits.operators import row_of
from headwise.evaluation.engine import Pixels, with_means
from headwise.evaluation.layout import Plan
from headwise.towers.base import Tower, evaluating, rows

ROOM = 4e9  # bytes of streams
REMEMBERED = 64  # masks whose embeddings are kept
Prefix = tuple[tuple[Edit, ...], ...]  # the edits of the rows before a block


class Stale(Exception):
    """Nobody waits for this mask any more."""


@dataclass
class Streams:
    """Embeddings of the same images under changing masks.

    Arguments:
        tower: on the layout's device, in its precision.
        pixels: (N, 3, R, R).
        layout: images a chunk.
        room: most bytes of streams that are kept.
    """

    tower: Tower
    pixels: Pixels
    layout: Plan
    room: float = ROOM
    means: list[torch.Tensor] = field(default_factory=list)
    _streams: dict[int, dict[tuple[int, bool], tuple[Prefix, torch.Tensor]]] = field(default_factory=dict)
    _found: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)
    _room: int | None = None  # of how many blocks

    @property
    def chunks(self) -> range:
        """The first image of every chunk."""
        return range(0, len(self.pixels), self.layout.chunk)

    def begin(self, progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """Run the unchanged tower, which fills the streams and `means`: every head's mean output, (H, d) a row.

        Arguments:
            progress: called with the images done since the last call.

        Returns:
            Embeddings (N, E), float32.
        """
        sums = [torch.zeros(block.heads, block.head_dim, dtype=torch.float64) for block in self.tower.blocks]

        def see(row: int, z: torch.Tensor) -> None:
            sums[row] += z.double().mean(2).sum(0).cpu()  # (B, H, Q, d) → (H, d)

        parts = []
        for _, e in self.embed(Mask.identity(self.tower.grid), see=see):
            parts.append(e)
            if progress:
                progress(len(e))
        self.means = [(total / len(self.pixels)).float() for total in sums]
        return torch.cat(parts)

    def embed(
        self,
        mask: Mask,
        wanted: Callable[[], bool] = lambda: True,
        see: Callable[[int, torch.Tensor], None] | None = None,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Embeddings of every chunk, in order.

        Arguments:
            mask: for this tower.
            wanted: asked before every block; False ends the work.
            see: gets row and head outputs z (B, H, Q, d) of every block that is run; of the identity alone.

        Yields:
            The first image's number and embeddings (B, E), float32 on the CPU.

        Raises:
            Stale: it is not wanted any more.
            HeadwiseError: an edit that the tower cannot have.
        """
        self.tower.check_mask(mask)
        if not mask.is_bound:
            mask = with_means(mask, self.means)
        found = self._remember(mask)
        for start in self.chunks:
            if start not in found:
                with evaluating(self.tower.parts), torch.inference_mode():
                    found[start] = self._run(mask, start, wanted, see).float().cpu()
            yield start, found[start]

    def _remember(self, mask: Mask) -> dict[int, torch.Tensor]:
        found = self._found.pop(mask.key, {})
        self._found[mask.key] = found  # the last asked for is the last to be forgotten
        while len(self._found) > REMEMBERED:
            self._found.pop(next(iter(self._found)))
        return found

    def _run(self, mask: Mask, start: int, wanted: Callable[[], bool], see) -> torch.Tensor:
        tower, kept = self.tower, self._streams.setdefault(start, {})
        known = {row: x for (row, _), (prefix, x) in kept.items() if prefix == mask.table[:row]}
        first = max(known, default=0)
        if first in known:
            x = known[first]
        else:
            images = self.pixels[start : start + self.layout.chunk].to(tower.device, tower.dtype)  # (B, 3, R, R)
            x = tower.stem(images)  # (B, N, D)
        for row in range(first, len(tower.blocks)):
            if not wanted():
                raise Stale
            prefix = mask.table[:row]
            whole = all(edit.keeps for edits in prefix for edit in edits)
            if row not in known and self._keeps(row, whole, x):
                kept[row, whole] = (prefix, x)
            block, queries = tower.blocks[row], tower.queries(row)
            if see:  # of the unchanged tower
                z, _ = block.attend(x, queries)  # (B, H, Q, d)
                see(row, z)
                x = block.finish(rows(x, queries), z)  # (B, Q, D)
            else:
                x = block.run(x, row_of(mask.table[row], block.head_dim, tower.device), queries)  # (B, Q, D)
        return tower.pool(x)  # (B, E)

    def _keeps(self, row: int, whole: bool, x: torch.Tensor) -> bool:
        """Whether there is room for the streams before this row, of the unchanged tower or of the last mask."""
        count = len(self.tower.blocks)
        if self._room is None:
            each = x[0].numel() * x.element_size() * len(self.pixels)
            self._room = int(self.room // max(each, 1))
        return row >= count - (self._room if whole else self._room - count)
