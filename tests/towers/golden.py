"""What every family has to fulfil, against the library's own forward on models with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from second_device import second_device
from torch import nn

from headwise.applied.fold import folded
from headwise.applied.live import apply
from headwise.edits.arrays import Array
from headwise.edits.edit import KINDS, Edit, Letter
from headwise.edits.mask import Mask
from headwise.edits.operators import letter_row
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan
from headwise.towers.base import Tower, rows

PLAN = Plan("float32", chunk=2, stack=3)
NORMS = ("norm", "ln_", "bn", ".ls", "gamma", "layrnorm", "LayerNorm")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for every parameter: initial zeros, ones and tiny layer scales would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1 and not name.endswith("bias") and any(norm in name for norm in NORMS):
                parameter.copy_(1 + 0.1 * noise)
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / max(fan_in, 16) ** 0.5)
            else:
                parameter.copy_(0.05 * noise)
    return module.eval()


def pictures(tower: Tower, count: int = 3) -> torch.Tensor:
    size = tower.resolution
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))


def embed(tower: Tower, images: torch.Tensor, mask: Mask, plan: Plan = PLAN) -> torch.Tensor:
    return dict(engine.embed(tower, images, [mask], plan))[mask]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference of embeddings, not normalised."""
    return float((a - b).abs().max())


def edits_of(name: str, width: int, seed: int = 0) -> tuple[Edit, Edit]:
    """Two edits of one letter with plain and with odd numbers; arrays are random."""
    kind, generator = KINDS[name], torch.Generator().manual_seed(seed)
    if name == "mean":  # its constants come from data
        return Edit.parse("mean"), Edit.parse("mean(0.3)")
    arrays = []
    for array, sides in kind.arrays:
        value = torch.randn((width,) * len(sides), generator=generator)
        value = torch.linalg.qr(value).Q if array == "axes" else 1 + 0.3 * value if array == "scales" else value
        arrays.append((array, Array.of(value)))
    numbers = (None, None) if kind.default is None else (1.6, 0.4) if kind.most > 1 else (0.0, 0.3)
    one, two = (Edit(**{kind.side: Letter(name, number, tuple(arrays))}) for number in numbers)
    return one, two


def soft_mask(tower: Tower, name: str) -> Mask:
    """Two edits of a letter in every row that can have it."""
    found = {}
    for row, block in enumerate(tower.blocks):
        if name in block.letters:
            first, second = edits_of(name, block.head_dim)
            found[tower.grid.head(row, 0)] = first
            found[tower.grid.head(row, block.heads - 1)] = second
    return Mask.of(tower.grid, found)


def mixed(tower: Tower, only: str = "letters") -> list[Mask]:
    """Few masks in which every letter that a block can have (or that is in its `folds`) is on one of its heads at least,
    one or two letters a head, plain and odd numbers in turn."""
    masks: list[Mask] = []
    left = [set(getattr(block, only)) & set(tower.letters) for block in tower.blocks]
    while any(left):
        found = {}
        for row, block in enumerate(tower.blocks):
            names = sorted(left[row])
            for index in range(block.heads):
                values = [name for name in names if KINDS[name].side == "value"]
                looks = [name for name in names if KINDS[name].side == "attention"]
                letters = [side[0] for side in (looks, values) if side]
                parts = [edits_of(name, block.head_dim, index)[(row + index) % 2] for name in letters]
                parts = [
                    Edit.parse(name) if only == "folds" and name == "uniform" else e
                    for name, e in zip(letters, parts, strict=True)
                ]
                sides = {side: getattr(e, side) for e in parts for side in ("attention", "value") if getattr(e, side)}
                if sides:
                    found[tower.grid.head(row, index)] = Edit(**sides)
                names = [name for name in names if name not in letters]
                left[row] -= set(letters)
        masks.append(Mask.of(tower.grid, found))
    return masks


def explicit(tower: Tower, images: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Embeddings by whole attention matrices and head by head, in float64: the edits' definitions as they are written."""
    x = tower.stem(images)
    for row, block in enumerate(tower.blocks):
        queries = tower.queries(row)
        q, k, v = block.project(x)  # (B, H, N, d), of a pooling q (B, H, Q, d)
        scale = getattr(getattr(block.module, "self_attn", None), "scale", q.shape[-1] ** -0.5)
        heads = []
        for h in range(block.heads):
            edit, (qh, kh, vh) = mask.table[row][h], (t[:, h] for t in (q, k, v))
            letter = edit.attention
            name, number = (letter.name, letter.number) if letter else ("", None)
            qh, kh = {"keys": (kh, kh), "queries": (qh, qh)}.get(name, (qh, kh))
            tau = number if name == "temperature" else 1.0
            a = (tau * scale * qh @ kh.mT).softmax(-1)  # (B, Q, N)
            n = a.shape[-1]
            a0 = {
                "uniform": torch.full_like(a, 1 / n),
                "cls": torch.zeros_like(a).index_fill(-1, torch.tensor([0]), 1.0),
                "self": torch.eye(a.shape[-2], n, dtype=a.dtype).expand_as(a),
            }.get(name)
            heads.append((a if a0 is None else number * a + (1 - number) * a0) @ vh)
        z = block.settle(torch.stack(heads, 1))  # (B, H, Q, d)
        z = torch.stack([_emitted(mask.table[row][h], z[:, h]) for h in range(block.heads)], 1)
        x = block.finish(rows(x, queries), z if queries is None else z[:, :, queries])
    return tower.pool(x)


def _emitted(edit: Edit, z: torch.Tensor) -> torch.Tensor:
    letter = edit.value
    if letter is None:
        return z
    g, arrays = (
        1.0 if letter.number is None else letter.number,
        {name: torch.tensor(array.numpy()).to(z) for name, array in letter.arrays},
    )
    if letter.name in ("zero", "scale"):
        return g * z
    if letter.name == "cls_row":
        return torch.cat([g * z[:, :1], z[:, 1:]], 1)
    if letter.name == "mean":
        return g * z + (1 - g) * arrays["constant"]
    if letter.name == "shift":
        return g * z + arrays["constant"]
    axes, centre = arrays["axes"], arrays["centre"]
    return centre + ((z - centre) @ axes * arrays["scales"]) @ axes.mT


@contextmanager
def changed(*parameters: torch.Tensor) -> Iterator[None]:
    """Parameters may be edited inside; they are restored after."""
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        with torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


# ---- the checks


def identity_is_the_own_forward(tower: Tower, own: torch.Tensor) -> None:
    assert difference(embed(tower, pictures(tower), Mask.identity(tower.grid)), own) < 1e-5


def zero_is_zeroing_out_projection_columns(tower: Tower) -> None:
    images = pictures(tower, 1)
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    ours = dict(engine.embed(tower, images, [*masks, Mask.identity(tower.grid)], PLAN))
    whole = ours.pop(Mask.identity(tower.grid))
    assert len(ours) == tower.grid.size
    for mask in masks:
        (head,) = mask.heads
        block = tower.blocks[tower.grid.row_of(head)]
        out = block.weights().out  # (D, H·d)
        with changed(out), torch.inference_mode():
            out[:, head.index * block.head_dim : (head.index + 1) * block.head_dim] = 0
            theirs = tower.encode(images)
        assert difference(ours[mask], theirs) < min(1e-5, difference(ours[mask], whole) / 5), head  # and not vacuous


def row_saving_changes_nothing(tower: Tower) -> None:
    with torch.inference_mode():
        x = tower.stem(pictures(tower, 2))
        for row, block in enumerate(tower.blocks):
            queries = tower.queries(row)
            z, v = block.attend(x)
            if queries is not None:
                saved, v2 = block.attend(x, queries)
                kept = block.finish(rows(x, queries), saved)
                torch.testing.assert_close(saved, z[:, :, queries], atol=2e-5, rtol=1e-4)
                torch.testing.assert_close(v2, v, atol=2e-5, rtol=1e-4)
                torch.testing.assert_close(kept, block.finish(x, z)[:, queries], atol=1e-4, rtol=1e-4)
            x = block.finish(x, z)


def bfloat16_agrees(tower: Tower) -> None:
    images = pictures(tower)
    mask = soft_mask(tower, "zero")
    full = embed(tower, images, mask)
    half = embed(tower, images, mask, Plan("bfloat16", chunk=2, stack=3))
    assert torch.nn.functional.cosine_similarity(full, half).min() >= 0.999


def live_equals_engine(tower: Tower, module: nn.Module) -> None:
    images = pictures(tower)
    means = engine.head_means(tower, images, PLAN)
    with torch.inference_mode():
        plain = tower.encode(images)
    for mask in mixed(tower):
        mask = engine.with_means(mask, means)
        ours = embed(tower, images, mask)
        with apply(module, mask), torch.inference_mode():
            theirs = tower.encode(images)
        assert difference(ours, theirs) < min(1e-5, difference(ours, plain) / 10), str(mask)  # and not vacuous
    with torch.inference_mode():
        assert torch.equal(tower.encode(images), plain)  # restored


def edits_are_what_they_are_defined_as(tower: Tower) -> None:
    """The engine in float32 against whole attention matrices in float64, letter by letter and two on one head."""
    images = pictures(tower, 2)
    means = engine.head_means(tower, images, PLAN)
    double = tower.cast("cpu", torch.float64)
    with torch.inference_mode():
        plain = explicit(double, images.double(), Mask.identity(tower.grid)).float()
        for mask in mixed(tower):
            mask = engine.with_means(mask, means)
            wanted = explicit(double, images.double(), mask).float()
            found = embed(tower, images, mask)
            assert difference(found, wanted) < min(1e-5, difference(plain, wanted) / 10), str(mask)


def folded_equals_live_and_comes_off(tower: Tower, module: nn.Module) -> int:
    """Before = after, bit for bit, and inside the weights give what the mask in place gives; how many masks folded."""
    images, count = pictures(tower, 2), 0
    means = engine.head_means(tower, images, PLAN)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.inference_mode():
        before = tower.encode(images)
    for mask in mixed(tower, "folds"):
        mask = engine.with_means(mask, means)
        with apply(module, mask), torch.inference_mode():
            edited = tower.encode(images)
        with folded(tower, mask), torch.inference_mode():
            inside = tower.encode(images)
        with torch.inference_mode():
            assert torch.equal(tower.encode(images), before), str(mask)
        assert difference(inside, edited) < min(1e-5, difference(edited, before) / 10), str(mask)  # and not vacuous
        assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items()), str(mask)
        count += 1
    return count


def another_device_agrees(tower: Tower) -> None:
    images = pictures(tower)
    means = engine.head_means(tower, images, PLAN)
    masks = [engine.with_means(mask, means) for mask in mixed(tower)]
    here = dict(engine.embed(tower, images, masks, PLAN))
    with second_device() as device:
        there = dict(engine.embed(tower, images, masks, replace(PLAN, device=device)))
    for mask in masks:
        assert difference(there[mask], here[mask]) < 1e-5, mask.kinds


def gradients_equal_finite_differences(tower: Tower) -> None:
    """Of the numbers of every letter that has one, and of spectral scales, in float64."""
    double = tower.cast("cpu", torch.float64)
    images = pictures(double, 1).double()
    numbered = [name for name in tower.letters if KINDS[name].default is not None or KINDS[name].needs]
    for name in [name for name in numbered if name in ("scale", "temperature", "uniform")]:

        def loss(gates: list[torch.Tensor], name: str = name) -> torch.Tensor:
            x = double.stem(images)
            for row, (block, g) in enumerate(zip(double.blocks, gates, strict=True)):
                mean = torch.linspace(-1, 1, block.head_dim, dtype=g.dtype).expand(block.heads, -1)
                edits = letter_row(name, g, mean=mean) if name in block.letters else None
                x = block.run(x, edits, double.queries(row))
            e = double.pool(x)
            return (e * torch.linspace(-1, 1, e.shape[-1], dtype=e.dtype)).sum()

        gates = [torch.full((block.heads,), 0.7, dtype=torch.float64, requires_grad=True) for block in double.blocks]
        gradients = torch.autograd.grad(loss(gates), gates, allow_unused=True)
        with torch.no_grad():
            for row, block in enumerate(double.blocks):
                if name not in block.letters:
                    continue
                shifted = []
                for step in (1e-4, -1e-4):
                    moved = [g.clone() for g in gates]
                    moved[row][0] += step
                    shifted.append(loss(moved))
                slope = float(shifted[0] - shifted[1]) / 2e-4
                assert abs(slope - float(gradients[row][0])) <= 1e-5 * max(1.0, abs(slope)), name
                assert abs(slope) > 1e-9, name
