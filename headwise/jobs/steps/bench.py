"""A model, its pairs, their pixels and captions' embeddings, and the study: what every job works on.

In: a loaded model, pairs, splits, how to run. Out: a `Bench`, prepared once, from which evaluators of any split come.
It does not know what will be asked of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from headwise.data.cache import PixelCache, pixels
from headwise.data.pairs import Pairs
from headwise.data.splits import Splits
from headwise.evaluation.crew import Crew, Staff, hired
from headwise.evaluation.engine import Means, head_means
from headwise.evaluation.evaluator import Evaluator, inline
from headwise.evaluation.fingerprints import recorded
from headwise.evaluation.layout import DTYPES, Plan, check_device, check_plan, plan
from headwise.evaluation.moments import Moments, head_moments
from headwise.evaluation.precision import Choice, faster
from headwise.evaluation.profile import Profile
from headwise.evaluation.study import Study
from headwise.jobs.steps.anchoring import Anchored
from headwise.jobs.steps.progress import Reporter, Silent, counted
from headwise.jobs.steps.tasks import Goal, Task, make_task
from headwise.processor import machine, use_threads
from headwise.scoring.objectives import Objective
from headwise.towers.base import Model, Tower
from headwise.towers.probes import image_answer, pixels_key, texts_key


@dataclass(frozen=True)
class Bench:
    """Everything an evaluation needs, prepared once.

    Arguments:
        model: the model, in float32.
        tower: its image tower on the plan's device and in the plan's precision.
        pairs: images and captions.
        splits: which image is in which split.
        task: what is measured, with its text embeddings.
        cache: preprocessed images.
        layout: precision, chunk and device of every evaluation.
        study: where scores are kept.
        reporter: where progress goes.
        kept: domains that a mask for these pairs must not break.
        anchored: images that learned rungs should leave where they are.
        key: a hash of all that a score depends on besides split and mask.
        cache_dir: where reads of test splits are remembered; None: the default cache.
        crew: workers that run the masks; None: this process does.
        profile: notes where the time goes.
    """

    model: Model
    tower: Tower
    pairs: Pairs
    splits: Splits
    task: Task
    cache: PixelCache
    layout: Plan
    study: Study | None
    reporter: Reporter = field(default_factory=Silent)
    kept: tuple[Bench, ...] = ()
    anchored: Anchored | None = None
    key: str = ""
    cache_dir: Path | None = None
    crew: Crew | None = None
    profile: Profile | None = None

    def indices(self, split: str) -> tuple[int, ...]:
        """The images of a split (search, pick, test), by their numbers in `pairs`."""
        return getattr(self.splits, split)

    def objective(self, split: str) -> Objective:
        """What is measured, within one split."""
        return self.task.objective(self.model, self.pairs, self.indices(split), self.layout.device)

    def evaluator(self, split: str) -> Evaluator:
        """What scores masks on a split; its scores go to the study."""
        objective = self.objective(split)
        return Evaluator(
            tower=self.tower,
            layout=self.layout,
            pixels=self.cache.take(self.indices(split)),
            objective=self.profile.objective(objective) if self.profile else objective,
            study=self.study,
            split=split,
            launcher=self.crew or inline,
        )

    def data_json(self) -> dict[str, object]:
        """What results say of the data."""
        pairs = self.pairs

        def part(name: str) -> dict[str, int]:
            subset = self.indices(name)
            return {"images": len(subset), "captions": pairs.subset(subset).text_count}

        return {
            "source": pairs.name,
            "hash": pairs.hash,
            "images": len(pairs),
            "captions": pairs.text_count,
            "split_how": self.splits.how,
            "split_hash": self.splits.hash,
            "splits": {name: part(name) for name in ("search", "pick", "test")},
            "skipped": pairs.skipped,
            **({"cut": asdict(cut)} if (cut := self.task.cut) and cut.texts else {}),
            "equal_captions": {"rule": pairs.equal_captions, "captions": pairs.repeated},
            **self.task.told,
            **({"parts": self._parts()} if pairs.parts else {}),
        }

    def _parts(self) -> list[dict]:
        """What a mixture is made of, with the images of each split."""
        found = []
        for k, part in enumerate(self.pairs.parts):
            own = {name: self.pairs.by_part(self.indices(name))[k][1] for name in ("search", "pick", "test")}
            splits = {
                name: {"images": len(images), "captions": part.pairs.subset(images).text_count}
                for name, images in own.items()
            }
            found.append(
                {
                    "name": part.name,
                    "source": part.pairs.name,
                    "hash": part.pairs.hash,
                    "weight": part.weight,
                    "task": self.task.parts[k].kind,
                    "fitness": self.task.parts[k].fitness,
                    **self.task.parts[k].told,
                    "splits": splits,
                }
            )
        return found

    def model_json(self) -> dict[str, object]:
        """What results say of the model."""
        tower = self.tower
        return {
            "name": self.model.name,
            "family": tower.family,
            "layers": list(tower.grid.layers),
            "pool_heads": tower.grid.pool,
            "weights_hash": self.model.tower.weights_hash,
            "tokens": tower.tokens,
            "resolution": tower.resolution,
            **({"overrides": self.model.overrides.given} if self.model.overrides.given else {}),
            **({"notes": list(self.model.notes)} if self.model.notes else {}),
        }

    @cached_property
    def means(self) -> Means:
        """Mean head outputs over the search split, for edits `mean`."""
        return head_means(self.tower, self.cache.take(self.splits.search), self.layout)

    @cached_property
    def moments(self) -> list[Moments]:
        """Mean and principal axes of what heads emit on the search split, in float32: learned edits are made of them."""
        layout = replace(self.layout, dtype="float32")
        return head_moments(self.model.tower, self.cache.take(self.splits.search), layout)


def prepare(
    model: Model,
    pairs: Pairs,
    splits: Splits,
    *,
    goal: Goal | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    chunk: int | None = None,
    study: Path | None = None,
    cache_dir: Path | None = None,
    cache_size: int | None = None,
    staff: Staff | None = None,
    profile: Profile | None = None,
    reporter: Reporter | None = None,
) -> Bench:
    """Decode the images, embed the captions, open the study.

    Arguments:
        model, pairs, splits: what to work on.
        goal: what to maximise.
        dtype, device, chunk: see `layout.plan`.
        study: the study's file; None keeps nothing.
        cache_dir: where preprocessed images and caption embeddings are kept between runs.
        cache_size: most bytes of preprocessed images to keep there; None: $HEADWISE_CACHE_SIZE, or no bound.
        staff: who runs the masks; None: this process.
        profile: notes where the time goes.
        reporter: where progress goes.

    Raises:
        HeadwiseError: a worker that cannot start, a model without a text tower, an image that cannot be decoded, a study of something else.
    """
    reporter, staff = reporter or Silent(), staff or Staff(workers=0)
    use_threads(staff.threads(device))
    as_recorded(study, reporter)
    chosen = precision(model.tower, dtype, device, study, cache_dir)
    layout = plan(model.tower, dtype=chosen.dtype, device=device, chunk=chunk)
    reporter.say(
        f"Precision {layout.dtype} on {layout.device} ({chosen.why}), {layout.chunk} images a chunk, {layout.stack} masks "
        "a stack."
    )
    crew = hired(staff, model, layout, cache_dir, reporter.say)
    task = make_task(model, pairs, goal or Goal(), cache_dir=cache_dir, reporter=reporter)
    facts = {**fingerprint(model, pairs, splits, task, layout), **({"workers": "mixed"} if staff.mixed else {})}
    opened = Study(study, facts, reporter.say) if study else None
    options = {"cache_dir": cache_dir, "cache_size": cache_size, "say": reporter.say}
    if layout.device == "cpu":
        with counted(reporter, "Decoding images", "images") as tell:
            cache = pixels(pairs, model, progress=tell, **options)
    else:  # the processor's cores decode while the GPU is at work
        cache = pixels(pairs, model, ahead=True, **options)
    tower = model.tower.cast(layout.device, layout.torch_dtype)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    if profile:
        profile.images = profile.images or len(splits.search)
        tower, opened = profile.tower(tower), opened and profile.study(opened)
    parts = {"key": key, "cache_dir": cache_dir, "crew": crew, "profile": profile}
    return Bench(model, tower, pairs, splits, task, cache, layout, opened, reporter, **parts)


def as_recorded(study: Path | None, reporter: Reporter) -> None:
    """Continue a study with the threads that it was begun with: sums of another number round differently."""
    there = ((recorded(study) if study else None) or {}).get("machine", {})
    if use_threads(there.get("threads", torch.get_num_threads())):
        reporter.say(f"Computing with {torch.get_num_threads()} threads, as this study did before.")


def precision(tower: Tower, dtype: str, device: str, study: Path | None, cache_dir: Path | None) -> Choice:
    """What `dtype` says; of `auto` what a study was begun with, whatever the timing says today, else what is faster.

    Raises:
        HeadwiseError: an unknown precision or device.
    """
    check_plan(dtype, None)
    check_device(device)
    if dtype != "auto":
        return Choice(dtype, "as given")
    there = ((recorded(study) if study else None) or {}).get("precision", {}).get("dtype")
    if there in DTYPES:
        return Choice(there, "as this study did before")
    return faster(tower, device, cache_dir)


def fingerprint(model: Model, pairs: Pairs, splits: Splits, task: Task, layout: Plan) -> Mapping[str, object]:
    """All that a score depends on besides split and mask."""
    return {
        "model": {
            "weights": model.tower.weights_hash,
            "text": model.text_hash,
            "image_encoder": image_answer(model.tower),
            "preprocessing": pixels_key(model.preprocess),
            **texts_key(model),
        },
        "data": {"pairs": pairs.hash, "split": splits.hash},
        "objective": {
            "kind": task.kind,
            "fitness": task.fitness,
            "texts": task.key,
            "loss": model.loss,
            "scale": round(model.logit_scale, 6),
            **({"bias": round(model.logit_bias, 6)} if model.logit_bias else {}),
        },
        "precision": {"dtype": layout.dtype, "chunk": layout.chunk, "stack": layout.stack},
        "machine": machine(layout.device),
    }
