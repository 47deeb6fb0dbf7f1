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
from headwise.edits.mask import Mask
from headwise.edits.operators import suppress
from headwise.evaluation import engine
from headwise.towers.base import Tower, rows

PLAN = engine.Plan("float32", chunk=2, stack=3)
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


def embed(tower: Tower, images: torch.Tensor, mask: Mask, plan: engine.Plan = PLAN) -> torch.Tensor:
    return dict(engine.embed(tower, images, [mask], plan))[mask]


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference of embeddings, not normalised."""
    return float((a - b).abs().max())


def soft_mask(tower: Tower, operator: str) -> Mask:
    """A mask with soft and hard gates in every row for which the operator is defined."""
    gates = []
    for block in tower.blocks:
        row = [1.0] * block.heads
        if operator in block.operators:
            row[0], row[-1] = 0.0, 0.3
        gates.append(tuple(row))
    return Mask(tower.grid, tuple(gates), operator)


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
    half = embed(tower, images, mask, engine.Plan("bfloat16", chunk=2, stack=3))
    assert torch.nn.functional.cosine_similarity(full, half).min() >= 0.999


def live_equals_engine(tower: Tower, module: nn.Module) -> None:
    images = pictures(tower)
    means = engine.head_means(tower, images, PLAN)
    with torch.inference_mode():
        plain = tower.encode(images)
    for operator in tower.operators:
        mask = engine.with_means(soft_mask(tower, operator), means)
        ours = embed(tower, images, mask)
        with apply(module, mask), torch.inference_mode():
            theirs = tower.encode(images)
        assert difference(ours, theirs) < min(1e-5, difference(ours, plain) / 10), operator  # and not vacuous
    with torch.inference_mode():
        assert torch.equal(tower.encode(images), plain)  # restored


def folding_is_exact(tower: Tower) -> None:
    """What `Block.folds` promises, done by hand on each row's first head."""
    images = pictures(tower, 2)
    means = engine.head_means(tower, images, PLAN)
    for row, block in enumerate(tower.blocks):
        weights, d = block.weights(), block.head_dim
        head = tower.grid.head(row, 0)
        if "uniform" in block.folds:
            assert weights.query is not None
            parts = [weights.query] + ([] if weights.query_bias is None else [weights.query_bias])
            with changed(*parts), torch.inference_mode():
                for part in parts:
                    part[:d] = 0
                theirs = tower.encode(images)
            ours = embed(tower, images, Mask.suppress(tower.grid, [head], "uniform"))
            assert difference(ours, theirs) < 1e-5, f"uniform {head}"
        if "mean" in block.folds:
            assert weights.out_bias is not None
            mask = engine.with_means(Mask.suppress(tower.grid, [head], "mean"), means)
            with changed(weights.out, weights.out_bias), torch.inference_mode():
                weights.out_bias.add_(weights.out[:, :d] @ means[row][0])
                weights.out[:, :d] = 0
                theirs = tower.encode(images)
            assert difference(embed(tower, images, mask), theirs) < 1e-5, f"mean {head}"


def folded_equals_live_and_comes_off(tower: Tower, module: nn.Module) -> int:
    """Before = after, bit for bit, and inside the weights give what the mask in place gives; how many masks folded."""
    images, count = pictures(tower, 2), 0
    means = engine.head_means(tower, images, PLAN)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.inference_mode():
        before = tower.encode(images)
    for operator in ("zero", "mean", "uniform"):
        gates = [[1.0] * block.heads for block in tower.blocks]
        for row, block in zip(gates, tower.blocks, strict=True):
            if operator in block.folds:
                row[0], row[-1] = 0.0, 0.0 if operator == "uniform" else 0.3
        mask = Mask(tower.grid, tuple(map(tuple, gates)), operator)
        if mask.is_identity or operator not in tower.operators:
            continue
        mask = engine.with_means(mask, means)
        with apply(module, mask), torch.inference_mode():
            masked = tower.encode(images)
        with folded(tower, mask), torch.inference_mode():
            inside = tower.encode(images)
        with torch.inference_mode():
            assert torch.equal(tower.encode(images), before), operator
        assert difference(inside, masked) < min(1e-5, difference(masked, before) / 10), operator  # and not vacuous
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items()), operator
        count += 1
    return count


def another_device_agrees(tower: Tower) -> None:
    images = pictures(tower)
    masks = [engine.with_means(soft_mask(tower, op), engine.head_means(tower, images, PLAN)) for op in tower.operators]
    here = dict(engine.embed(tower, images, masks, PLAN))
    with second_device() as device:
        there = dict(engine.embed(tower, images, masks, replace(PLAN, device=device)))
    for mask in masks:
        assert difference(there[mask], here[mask]) < 1e-5, mask.operator


def gate_gradients_equal_finite_differences(tower: Tower) -> None:
    double = tower.cast("cpu", torch.float64)
    images = pictures(double, 1).double()
    operator = "uniform" if "uniform" in tower.operators else "zero"

    def loss(gates: list[torch.Tensor]) -> torch.Tensor:
        x = double.stem(images)
        for row, (block, g) in enumerate(zip(double.blocks, gates, strict=True)):
            queries = double.queries(row)
            z, v = block.attend(x, queries)
            # queries of pooling are not tokens, but `uniform` and `zero` need none
            x = block.finish(rows(x, queries), suppress(operator, z, v, g, queries=queries))
        e = double.pool(x)
        return (e * torch.linspace(-1, 1, e.shape[-1], dtype=e.dtype)).sum()

    gates = [torch.full((block.heads,), 0.7, dtype=torch.float64, requires_grad=True) for block in double.blocks]
    gradients = torch.autograd.grad(loss(gates), gates)
    with torch.no_grad():
        for row in range(len(gates)):
            shifted = []
            for step in (1e-4, -1e-4):
                moved = [g.clone() for g in gates]
                moved[row][0] += step
                shifted.append(loss(moved))
            slope = float(shifted[0] - shifted[1]) / 2e-4
            assert abs(slope - float(gradients[row][0])) <= 1e-5 * max(1.0, abs(slope))
            assert abs(slope) > 1e-9
