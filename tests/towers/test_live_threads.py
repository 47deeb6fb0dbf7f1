"""Edits belong to the thread or task that made them: overlapping contexts on one shared model, in any order."""

import asyncio
import contextvars
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from cases import built
from conftest import small_clip
from golden import pictures
from test_live_families import NAMES, a_mask, call, replica
from torch import nn

from headwise.applied.live import apply
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import tower_of

FAMILIES = [*NAMES, "open_clip RN50", "timm EVA02, average", "timm RN50", "open_clip own Attention"]


class Steps:
    """Two threads take turns, so that every interleaving is the same on every machine."""

    def __init__(self, order: str):
        self.order, self.at, self.turn = order, 0, threading.Condition()

    def take(self, who: str) -> None:
        with self.turn:
            assert self.turn.wait_for(lambda: self.order[self.at : self.at + 1] == who, timeout=60), self.order
            self.at += 1
            self.turn.notify_all()


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for the last bits, which may depend on a thread's share of the cores."""
    return torch.allclose(a, b, atol=1e-5, rtol=1e-5)


def in_threads(*jobs) -> None:
    with ThreadPoolExecutor(len(jobs)) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result(timeout=120)


def footprint(model: nn.Module) -> dict:
    """Everything that an edit might leave behind."""
    return {
        name: (type(module), tuple(sorted(vars(module))), module.training, getattr(module.forward, "__func__", None))
        for name, module in model.named_modules()
    }


def two_masks(model: nn.Module) -> tuple[Mask, Mask]:
    first = a_mask(model)
    grid = first.grid
    return first, Mask.suppress(grid, [grid.head(row, 1) for row in range(len(grid.rows))])


@pytest.mark.parametrize("name", FAMILIES)
def test_overlapping_contexts_of_two_threads_see_their_own_masks_and_leave_nothing(name):
    """Each thread's three steps are: enter, run, leave. A third thread runs the model plainly before and after."""
    model = built(name)
    images, masks, before = pictures(tower_of(model), 1), two_masks(model), footprint(model)
    with torch.inference_mode():
        plain = call(model, images, name)
        alone = {}
        for who, mask in zip("ab", masks, strict=True):
            with apply(model, mask):
                alone[who] = call(model, images, name)
            assert not torch.allclose(alone[who], plain, atol=1e-4)
    assert not torch.allclose(alone["a"], alone["b"], atol=1e-4)

    def masked(steps: Steps, who: str, mask: Mask) -> None:
        with torch.inference_mode():
            steps.take(who)
            with apply(model, mask, probe=False):
                steps.take(who)
                assert same(call(model, images, name), alone[who])
                steps.take(who)

    def unmasked(steps: Steps) -> None:
        with torch.inference_mode():
            steps.take("p")
            assert same(call(model, images, name), plain)

    for order in ("abpabab", "abaapbb", "aabpbab", "abbpbaa"):
        steps = Steps(order)
        jobs = [partial(masked, steps, who, mask) for who, mask in zip("ab", masks, strict=True)]
        in_threads(*jobs, partial(unmasked, steps))
        assert footprint(model) == before, order
    with torch.inference_mode():
        assert same(call(model, images, name), plain)


def test_many_threads_at_once_on_one_model():
    """No order is arranged here: whatever it is, each thread gets what it gets alone."""
    model = small_clip()
    grid = tower_of(model).grid
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    masks = [Mask.suppress(grid, [head], edit) for head in list(grid)[:4] for edit in ("zero", "scale(0.5)")]
    before = footprint(model)

    def embed() -> torch.Tensor:
        with torch.inference_mode():
            return model(pixel_values=images).image_embeds

    alone = []
    for mask in masks:
        with apply(model, mask):
            alone.append(embed())
    together = threading.Barrier(len(masks))

    def work(mask: Mask, wanted: torch.Tensor) -> None:
        together.wait(60)
        for _ in range(10):
            with apply(model, mask, probe=False):
                assert same(embed(), wanted)

    in_threads(
        *[lambda mask=mask, wanted=wanted: work(mask, wanted) for mask, wanted in zip(masks, alone, strict=True)]
    )
    assert footprint(model) == before


def test_a_model_in_training_mode_stays_so_and_its_hooks_see_no_probe():
    model, seen = small_clip().train(), []
    handle = model.vision_model.encoder.register_forward_hook(lambda *_: seen.append(1))
    modes: list[bool] = []
    other = model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    mask = Mask.suppress(tower_of(model).grid, ["L0.H1"])
    with apply(model, mask):
        assert seen == []
        assert model.training
        model(pixel_values=torch.zeros(1, 3, 32, 32))
    assert (seen, modes, model.training) == ([1], [True], True)
    handle.remove()
    other.remove()


@torch.no_grad()
def test_generators_may_interleave_and_be_closed_elsewhere():
    model = small_clip()
    grid, before = tower_of(model).grid, footprint(model)
    images = torch.randn(1, 3, 32, 32)
    plain = model(pixel_values=images).image_embeds

    def masked(head: str):
        with apply(model, Mask.suppress(grid, [head])):
            while True:
                yield model(pixel_values=images).image_embeds

    one, two = masked("L0.H0"), masked("L0.H1")
    first, second = next(one), next(two)
    one.close()  # the outer one ends first
    assert same(next(two), second)
    assert not same(first, second)
    threading.Thread(target=two.close).start()
    while two.gi_frame is not None:  # closed by a thread that never entered it
        pass
    assert same(model(pixel_values=images).image_embeds, plain)
    assert footprint(model) == before


@torch.no_grad()
def test_tasks_of_asyncio_have_masks_of_their_own():
    model = small_clip()
    grid, images = tower_of(model).grid, torch.randn(1, 3, 32, 32)

    def embed() -> torch.Tensor:
        with torch.no_grad():
            return model(pixel_values=images).image_embeds

    plain, alone = embed(), {}
    for head in ("L0.H0", "L1.H1"):
        with apply(model, Mask.suppress(grid, [head])):
            alone[head] = embed()

    async def task(head: str, mine: asyncio.Event, other: asyncio.Event) -> None:
        with apply(model, Mask.suppress(grid, [head])):
            mine.set()
            await other.wait()  # both are inside
            assert same(embed(), alone[head])
            assert same(await asyncio.to_thread(embed), alone[head])  # runs in a copy of the context
        assert same(embed(), plain)

    async def main() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(task("L0.H0", a, b), task("L1.H1", b, a))

    asyncio.run(main())


@torch.no_grad()
def test_a_thread_started_inside_sees_the_mask_in_a_copy_of_the_context_alone():
    model = small_clip()
    images = torch.randn(1, 3, 32, 32)
    plain = model(pixel_values=images).image_embeds

    def embed() -> torch.Tensor:
        with torch.no_grad():
            return model(pixel_values=images).image_embeds

    with apply(model, Mask.suppress(tower_of(model).grid, ["L0.H0"])), ThreadPoolExecutor(1) as pool:
        masked = embed()
        assert same(pool.submit(embed).result(), plain)
        assert same(pool.submit(contextvars.copy_context().run, embed).result(), masked)


@torch.no_grad()
def test_copies_carry_the_mask_of_who_makes_them_and_pickles_none():
    model = small_clip()
    images = torch.randn(1, 3, 32, 32)

    def of(module: nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return module(pixel_values=images).image_embeds

    plain, state = of(model), {name: value.clone() for name, value in model.state_dict().items()}
    entered, leave, made = threading.Event(), threading.Event(), {}

    def other() -> None:
        entered.wait(60)
        made.update(copied=copy.deepcopy(model), pickled=pickle.loads(pickle.dumps(model)), replica=replica(model, 1.0))
        leave.set()

    def owner() -> None:
        with apply(model, Mask.suppress(tower_of(model).grid, ["L0.H0"])):
            made["masked"] = of(model)
            entered.set()
            leave.wait(60)
            made.update(mine=copy.deepcopy(model), my_replica=replica(model, 1.0), plain=pickle.dumps(model))
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    in_threads(owner, other)
    for name in ("copied", "pickled", "replica"):
        assert same(of(made[name]), plain), name
    for name in ("mine", "my_replica"):
        assert same(of(made[name]), made["masked"]), name
    assert same(of(copy.deepcopy(made["mine"])), made["masked"])
    assert same(of(pickle.loads(made["plain"])), plain)  # as its state dict: the model itself
    assert [type(module) for module in made["copied"].modules()] == [type(module) for module in model.modules()]
    with pytest.raises(HeadwiseError, match="cannot be pickled"):
        pickle.dumps(made["mine"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@torch.no_grad()
def test_torchs_own_threads_work_for_the_thread_that_called_them():
    """As the threads in which a device's backward pass recomputes checkpointed layers: torch hands them its state."""
    model = small_clip()
    images = torch.randn(1, 3, 32, 32)
    threads: list[int] = []

    def embed(x: torch.Tensor) -> torch.Tensor:
        threads.append(threading.get_ident())
        with torch.no_grad():
            return model(pixel_values=x).image_embeds

    forked = torch.jit.script(_forked(embed))
    plain = model(pixel_values=images).image_embeds
    with apply(model, Mask.suppress(tower_of(model).grid, ["L0.H0"])):
        masked = model(pixel_values=images).image_embeds
        assert same(forked(images), masked)
    assert same(forked(images), plain)
    assert threading.get_ident() not in threads


def _forked(embed) -> nn.Module:
    class Forked(nn.Module):
        @torch.jit.ignore
        def embed(self, x: torch.Tensor) -> torch.Tensor:
            return embed(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.jit.wait(torch.jit.fork(self.embed, x))

    return Forked()


def test_a_compiled_model_shared_by_threads():
    model = copy.deepcopy(built("hf CLIP"))
    tower = tower_of(model)
    images, masks = pictures(tower, 1), two_masks(model)
    torch.compiler.reset()
    compiled = torch.compile(tower.encode, backend="eager")
    steps = Steps("abababab")
    try:
        with torch.no_grad():
            plain = compiled(images)
            alone = {}
            for who, mask in zip("ab", masks, strict=True):
                with apply(model, mask):
                    alone[who] = tower.encode(images)

        def run(who: str, mask: Mask) -> None:
            with torch.no_grad():
                steps.take(who)
                with apply(model, mask, probe=False):
                    for _ in range(2):
                        steps.take(who)
                        torch.testing.assert_close(compiled(images), alone[who], atol=1e-5, rtol=1e-5)
                    steps.take(who)

        in_threads(lambda: run("a", masks[0]), lambda: run("b", masks[1]))
        with torch.no_grad():
            assert same(compiled(images), plain)
    finally:
        torch.compiler.reset()


@torch.no_grad()
def test_a_forward_that_somebody_else_put_on_a_module_survives():
    """Monkey patches from before stay; those made inside wrap the edited forward, and may be taken back."""
    model = small_clip()
    attention = model.vision_model.encoder.layers[0].self_attn
    images = torch.randn(1, 3, 32, 32)
    calls: list[str] = []

    def wrap(forward, name: str):
        def wrapped(*args, **kwargs):
            calls.append(name)
            return forward(*args, **kwargs)

        return wrapped

    plain = model(pixel_values=images).image_embeds
    patched = attention.forward = wrap(attention.forward, "before")
    with apply(model, Mask.suppress(tower_of(model).grid, ["L0.H0"])):
        masked = model(pixel_values=images).image_embeds
        kept = attention.forward
        attention.forward = wrap(kept, "inside")
        assert same(model(pixel_values=images).image_embeds, masked)
        assert calls == ["inside"]
        attention.forward = kept
    assert vars(attention)["forward"] is patched
    assert not same(masked, plain)
    assert same(model(pixel_values=images).image_embeds, plain)
    assert calls == ["inside", "before"]
