"""Edits → embeddings, sharing all work that they share: a depth-first walk over the trie of their rows.

Masks sorted row by row form a trie. A node is (row, residual stream). Projections and the unedited attention run once
per node; its children differ in the attention of the heads that attend otherwise, in what heads emit, and in `finish`.
Nodes of one depth are stacked along the batch up to a memory budget, so that siblings run as one batch. Memory is
depth × one stack of one chunk of images; embeddings go to a temporary file, so it does not grow with the number of
images or masks.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from headwise.edits.edit import Edit
from headwise.edits.mask import Mask
from headwise.edits.operators import Row, row_of
from headwise.errors import HeadwiseError
from headwise.evaluation.layout import Plan
from headwise.towers.base import Tower, evaluating, rows
from headwise.towers.blocks import Block
from headwise.towers.fits import check_fits

Means = Sequence[torch.Tensor]  # per row of the grid: every head's mean output, (H, d) float32
MASKS_PER_WALK = 48  # results reach the study after each walk; a walk repeats the identity's prefix once


class Pixels(Protocol):
    """Preprocessed images: a tensor (N, 3, R, R), or the decoded-image cache."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> torch.Tensor: ...


def for_others(pixels: Pixels) -> Pixels:
    """Images as another process gets them: paths and rows where they lie in a cache."""
    return getattr(pixels, "shared", lambda: pixels)()


# ---- the trie


@dataclass
class Node:
    """A set of masks that agree on the edits of every row so far."""

    masks: list[int]  # indices into the walk's masks
    children: list[Node] = field(default_factory=list)
    edits: tuple[Edit, ...] = ()  # of the row that leads here


def trie(masks: Sequence[Mask], first: int = 0) -> Node:
    """The trie of the masks' edits from row `first` on."""

    def grow(node: Node, row: int) -> Node:
        if row == len(masks[0].table):
            return node
        groups: dict[tuple[Edit, ...], list[int]] = {}
        for i in node.masks:
            groups.setdefault(masks[i].table[row], []).append(i)
        node.children = [grow(Node(group, edits=edits), row + 1) for edits, group in groups.items()]
        return node

    return grow(Node(list(range(len(masks)))), first)


def ffe(tower: Tower, masks: Sequence[Mask]) -> float:
    """Cost of evaluating these masks together, in full-forward equivalents, from multiply-adds.

    One is the cost of one pass of the whole tower over the images; work that masks share counts once.
    """
    if not masks:
        return 0.0
    sizes = [(tower.tokens, tower.query_count(row)) for row in range(len(tower.blocks))]
    costs = [block.cost(*size) for block, size in zip(tower.blocks, sizes, strict=True)]

    def walk(node: Node, row: int) -> float:
        if not node.children:
            return 0.0
        attend, finish = costs[row]
        return attend + sum(
            finish + tower.blocks[row].extra_cost(child.edits, *sizes[row]) + walk(child, row + 1)
            for child in node.children
        )

    return walk(trie(masks), 0) / sum(attend + finish for attend, finish in costs)


# ---- the walk


def embed(
    tower: Tower,
    pixels: Pixels,
    masks: Sequence[Mask],
    layout: Plan,
    *,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[Mask, torch.Tensor]]:
    """Embeddings of every image under every mask.

    Arguments:
        tower: the image tower; it is cast to the plan's device and precision if it has another.
        pixels: preprocessed images, (N, 3, R, R).
        masks: any masks for this tower's grid; duplicates are computed once.
        layout: chunk size, precision, device.
        means: the constants of `mean`, per row (H, d), where the masks do not carry their own.
        progress: called with the FFE done since the last call.

    Yields:
        Each different mask with its embeddings, (N, E) float32 on the CPU, not normalised, in the order of
        their rows.

    Where the device's memory is too small for a stack or a chunk, half of it is tried, and so on; the layout, and with it
    a study's key, stays what it was, and the embeddings are the same up to rounding.

    Raises:
        HeadwiseError: a mask that does not fit the tower, or an image that does not fit into memory.
    """
    for mask in masks:
        check_fits(tower, mask, check_weights=False)
    ready, room = tower.cast(layout.device, layout.torch_dtype), _Room(layout.chunk, layout.stack)
    for batch in walks(masks):
        yield from _walk_all(ready, pixels, batch, room, means, progress)


def walks(masks: Sequence[Mask]) -> list[list[Mask]]:
    """The different masks in the order of their rows, the identity first, cut into sets that are walked together."""
    unique = sorted(dict.fromkeys(masks), key=lambda mask: mask.order)
    return [unique[start : start + MASKS_PER_WALK] for start in range(0, len(unique), MASKS_PER_WALK)]


@dataclass
class _Room:
    """What fits into memory at once: images a chunk, nodes a stack."""

    chunk: int
    stack: int

    def halve(self, error: torch.OutOfMemoryError) -> None:
        """Less at once: first fewer nodes, then fewer images."""
        if self.stack > 1:
            self.stack //= 2
        elif self.chunk > 1:
            self.chunk //= 2
        else:
            raise HeadwiseError(
                "The device's memory is too small for one image under one set of edits. Use --dtype bfloat16, another "
                f"device, or free its memory ({error})."
            ) from error


def _walk_all(tower: Tower, pixels: Pixels, masks: list[Mask], room: _Room, means: Means | None, progress):
    """One walk of one set of masks over all chunks; embeddings pass through a temporary file."""
    root = trie(masks if means is None else [with_means(mask, means) for mask in masks])
    total, cost = len(pixels), ffe(tower, masks)
    compiled = _compiled(tower, root)
    with tempfile.TemporaryFile(prefix="headwise-") as file:
        with evaluating(tower.parts), torch.inference_mode():  # not while whoever asked looks at what was yielded
            width = start = 0
            while start < total:
                images = pixels[start : start + room.chunk]  # (B, 3, R, R)
                try:
                    for i, e in _walk_chunk(tower, root, images.to(tower.device, tower.dtype), room.stack, compiled):
                        width = e.shape[-1]
                        file.seek((i * total + start) * width * 4)
                        file.write(e.float().cpu().contiguous().numpy().data)  # (B, E)
                except torch.OutOfMemoryError as error:
                    room.halve(error)
                    continue
                start += len(images)
                if progress:
                    progress(cost * len(images) / total)
        for i, mask in enumerate(masks):
            file.seek(i * total * width * 4)
            e = torch.empty(total, width)  # (N, E)
            if file.readinto(e.numpy().data.cast("B")) != e.nbytes:
                raise OSError(errno.EIO, "a temporary file lost what was written to it")
            yield mask, e


Rows = dict[tuple[int, tuple[Edit, ...]], Row | None]  # (row, its edits) → tensors


def _compiled(tower: Tower, root: Node) -> Rows:
    """The edits of every node as tensors, each once."""
    found: Rows = {}

    def visit(node: Node, row: int) -> None:
        for child in node.children:
            if (row, child.edits) not in found:
                found[row, child.edits] = row_of(child.edits, tower.blocks[row].head_dim, tower.device)
            visit(child, row + 1)

    visit(root, 0)
    return found


@dataclass(frozen=True)
class _Before:
    """The heads of n nodes before their edits."""

    block: Block
    queries: slice | None
    settled: torch.Tensor  # (n, B, H, Q, d)
    looks: tuple[torch.Tensor | None, ...] | None  # z, q, k, v, all queries, (n, B, H, ·, d); None: no child needs them

    def edited(self, node: int, row: Row | None) -> torch.Tensor:
        """Head outputs of a node under edits, (B, H, Q, d)."""
        if row is None:
            return self.settled[node]
        if not row.looks:
            return row.emit(self.settled[node], self.queries)
        assert self.looks is not None
        z, q, k, v, every = (None if one is None else one[node] for one in self.looks)
        assert z is not None
        assert q is not None
        assert k is not None
        assert v is not None
        return self.block.edited(row, z, q, k, v, self.queries, every)


def _before(
    block: Block, x: torch.Tensor, edits: Sequence[Row | None], queries: slice | None, shape: tuple[int, int]
) -> _Before:
    """The residual streams x (n·B, N, D) of n nodes → their heads, and what these edits need of them."""
    q, k, v = block.project(x, queries)  # (n·B, H, ·, d)
    z = block.attention(q, k, v)  # (n·B, H, Q, d)
    settled, looks = block.settle(z).unflatten(0, shape), None
    if any(row is not None and row.looks for row in edits):
        all_queries = queries is not None and any(row is not None and row.needs_all_queries for row in edits)
        every = block.project(x)[0] if all_queries else None  # (n·B, H, N, d)
        looks = tuple(None if one is None else one.unflatten(0, shape) for one in (z, q, k, v, every))
    return _Before(block, queries, settled, looks)


def _walk_chunk(tower: Tower, root: Node, images, stack: int, compiled: Rows) -> Iterator[tuple[int, torch.Tensor]]:
    """(mask, embeddings (B, E)) of one chunk of images."""
    size = len(images)

    def descend(nodes: list[Node], x: torch.Tensor, row: int) -> Iterator[tuple[int, torch.Tensor]]:
        # x (n·B, N, D): the residual streams of n nodes, one after the other
        while row < len(tower.blocks):
            block, queries = tower.blocks[row], tower.queries(row)
            pairs = [(parent, child) for parent, node in enumerate(nodes) for child in node.children]
            edits = [compiled[row, child.edits] for _, child in pairs]
            before = _before(block, x, edits, queries, (len(nodes), size))
            x = rows(x, queries).unflatten(0, (len(nodes), size))  # (n, B, Q, D)
            for start in range(0, len(pairs), stack):
                part = pairs[start : start + stack]
                parents, children = [parent for parent, _ in part], [child for _, child in part]
                z = torch.stack(
                    [before.edited(p, one) for p, one in zip(parents, edits[start : start + stack], strict=True)]
                )  # (m, B, H, Q, d)
                x2 = x if parents == list(range(len(nodes))) else x[parents]  # (m, B, Q, D)
                x2 = block.finish(x2.flatten(0, 1), z.flatten(0, 1))  # (m·B, Q, D)
                if start + stack < len(pairs):
                    yield from descend(children, x2, row + 1)
                else:  # no recursion for the last: it would keep the heads and x of every row below until it is done
                    nodes, x = children, x2
            row += 1
        e = tower.pool(x).unflatten(0, (len(nodes), size))  # (n, B, E)
        for node, embedding in zip(nodes, e, strict=True):
            for i in node.masks:
                yield i, embedding

    if tower.blocks:
        yield from descend([root], tower.stem(images), 0)


# ---- the constants of `mean`


def head_means(tower: Tower, pixels: Pixels, layout: Plan) -> list[torch.Tensor]:
    """Every head's mean output over images and the query rows that are computed, float32.

    Returns:
        Per row of the grid, (H, d).
    """
    ready = tower.cast(layout.device, layout.torch_dtype)
    sums = [torch.zeros(block.heads, block.head_dim, dtype=torch.float64) for block in ready.blocks]
    with evaluating(ready.parts), torch.inference_mode():
        for start in range(0, len(pixels), layout.chunk):
            x = ready.stem(pixels[start : start + layout.chunk].to(ready.device, ready.dtype))  # (B, N, D)
            for row, block in enumerate(ready.blocks):
                queries = ready.queries(row)
                z, _ = block.attend(x, queries)  # (B, H, Q, d)
                sums[row] += z.double().mean(2).sum(0).cpu()  # (H, d)
                x = block.finish(rows(x, queries), z)
    return [(total / len(pixels)).float() for total in sums]


def with_means(mask: Mask, means: Means) -> Mask:
    """The mask with the constants that its edits `mean` still lack; unchanged where they lack none."""
    return mask.bound(lambda head: means[mask.grid.row_of(head)][head.index])
