"""What is measured on a source: captions, labels, Cola, or a weighted mean over the parts of a mixture.

In: a model, pairs, a `Goal`. Out: a `Task` with its text embeddings (T, E), made once and cached, from which
objectives of any split come. It does not know what is searched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwise.checked import Damaged, dump_tensors, load_tensors
from headwise.data.files import cache_folder
from headwise.data.pairs import COLA_PAIRS, Pairs
from headwise.errors import HeadwiseError
from headwise.files import OTHER_CACHE, write_files
from headwise.jobs.steps.distractors import Distractors, Given, distractors_of, texts_of
from headwise.jobs.steps.progress import Reporter, Silent
from headwise.processor import machine
from headwise.scoring.objectives import (
    Classification,
    Combined,
    MultiObject,
    Objective,
    Part,
    Prototypes,
    Retrieval,
    SingleObject,
)
from headwise.scoring.objectives.classes import FITNESS
from headwise.scoring.prompts import class_embeddings, class_names, prompts, templates
from headwise.towers.base import Model
from headwise.towers.probes import texts_key
from headwise.towers.texts import Cut, cut

TEXTS_AT_ONCE = 1024
COLA = {COLA_PAIRS: "multi_object_acc", "cola_single_object": "mean_average_precision"}
FITNESSES = ("auto", "mean_recall", *FITNESS, *COLA.values())
FORMAT = 2  # of the captions' cache: it goes up when old entries must not be read


@dataclass(frozen=True)
class Goal:
    """What to maximise.

    Arguments:
        fitness: `auto`: mean_recall for captions, acc1 for labels, Cola's own metric for Cola. For labels also mean_per_class_recall,
            group_mean_acc and worst_group_acc (the source's group column is the attribute).
        templates: for labels: `openai80`, `openai7`, `siglip`, `plain` or a file; None: the source's own, or openai80.
        class_names: for labels: `imagenet` or a file; None: the source's own.
        distractors: for captions: texts that belong to no image and join the captions as wrong answers, on every split:
            a file of lines, `phrases` (the list that is shipped), or the texts.

    Raises:
        HeadwiseError: a fitness that there is not, or templates, class names or distractors that cannot be read. Whether they fit
            the data is seen when these are read.
    """

    fitness: str = "auto"
    templates: str | None = None
    class_names: str | None = None
    distractors: Given | None = None

    def __post_init__(self) -> None:
        if self.fitness not in FITNESSES:
            raise HeadwiseError(f"{self.fitness!r} is not a fitness. Use one of: {', '.join(FITNESSES)}.")
        if self.templates:
            templates(self.templates)
        if self.class_names:
            class_names(self.class_names)
        if self.distractors is not None:
            given = self.distractors
            if not isinstance(given, Distractors):
                given = str(given) if isinstance(given, str | Path) else tuple(given)
            object.__setattr__(self, "distractors", given)
            texts_of(given)

    def of(self, pairs: Pairs) -> Goal:
        """The goal for a part of these pairs, with the distractors that all of them have."""
        if self.distractors is None or not pairs.texts:
            return self
        return replace(self, distractors=distractors_of(self.distractors, pairs.texts, pairs.name))


@dataclass(frozen=True, eq=False)
class Task:
    """A goal with its text embeddings, computed once.

    Arguments:
        kind: `retrieval`, `classification`, `prototypes` (classification without texts), `cola_multi_object`,
            `cola_single_object` or `mix`.
        fitness: what searches maximise.
        texts: of all captions (T, E), or one per class or query (C, E); float32. Of prototypes, which need none,
            (C, 0); empty for a mixture.
        key: what the embeddings were made from, and the groups that count, for the study's key.
        parts: the tasks of a mixture's parts.
        cut: what the model's context did to the texts; None where it is not known.
        distractors: which texts join the captions as wrong answers; None: none.
        foreign: their embeddings, (D, E) float32.
    """

    kind: str
    fitness: str
    texts: torch.Tensor
    key: str
    parts: tuple[Task, ...] = ()
    cut: Cut | None = None
    distractors: Distractors | None = None
    foreign: torch.Tensor | None = None

    @property
    def title(self) -> str:
        """What results call it: clip_benchmark's names where it has one."""
        return "zeroshot_" + self.kind if self.kind in ("retrieval", "classification") else self.kind

    @property
    def told(self) -> dict[str, object]:
        """What results say of distractors; nothing where there are none."""
        return {} if self.distractors is None else {"distractors": self.distractors.json()}

    def objective(self, model: Model, pairs: Pairs, indices: Sequence[int], device: str) -> Objective:
        """The task within one split, its images in the order of `indices` (of a mixture: ascending)."""
        if self.parts:
            return self._combined(model, pairs, indices, device)
        part = pairs.subset(indices)
        if self.kind in ("classification", "prototypes"):
            assert part.labels is not None
            groups = part.groups if "group" in self.fitness else None
            labels = np.array(part.labels)
            objective = Prototypes if self.kind == "prototypes" else Classification
            return objective(self.texts, labels, groups, self.fitness, model.logit_scale, device)
        if self.kind == "cola_single_object":
            present, counted = (_table(rows, len(self.texts)) for rows in (part.present, part.counted))
            return SingleObject(self.texts, present, counted, device)
        first = np.searchsorted(pairs.owner, np.asarray(indices))  # where each image's captions begin
        mine = [start + k for start, i in zip(first, indices, strict=True) for k in range(len(pairs.captions[i]))]
        texts = self.texts[mine]  # (T of the split, E)
        if self.kind == COLA_PAIRS:
            return MultiObject(texts, MultiObject.partners(part.groups or ()), model.logit_scale, device)
        model_loss = (model.logit_scale, model.logit_bias, model.loss)
        return Retrieval(texts, part.owner, *model_loss, device, part.same, self.foreign)

    def _combined(self, model: Model, pairs: Pairs, indices: Sequence[int], device: str) -> Combined:
        parts, start = [], 0
        for (part, own), task in zip(pairs.by_part(indices), self.parts, strict=True):
            parts.append(Part(part.name, task.objective(model, part.pairs, own, device), start, part.weight))
            start += len(own)
        return Combined(tuple(parts))


def _table(rows: Sequence[Sequence[int]] | None, queries: int) -> np.ndarray:
    """Queries of each image → bool (N, C)."""
    assert rows is not None
    table = np.zeros((len(rows), queries), dtype=bool)
    for i, ones in enumerate(rows):
        table[i, list(ones)] = True
    return table


def make_task(
    model: Model, pairs: Pairs, goal: Goal, *, cache_dir: Path | None = None, reporter: Reporter | None = None
) -> Task:
    """Embed the captions, or the class names, of a source.

    Raises:
        HeadwiseError: a model without text tower, neither captions nor labels, or a fitness that does not fit.
    """
    if goal.distractors is not None and not pairs.parts and (pairs.kind is not None or not pairs.texts):
        what = "is of Cola" if pairs.kind is not None else "has no captions"
        raise HeadwiseError(f"{pairs.name} {what}; distractors join the captions that images are to find.")
    if pairs.parts:
        return _mixture(model, pairs, goal, cache_dir, reporter)
    if model.encode_texts is None and pairs.labels is not None:
        return _prototypes(model, pairs, goal, reporter or Silent())
    if model.encode_texts is None:
        raise HeadwiseError(
            f"{model.name} has no text tower, and captions need one. Use the whole model (for transformers CLIPModel, "
            "not CLIPVisionModelWithProjection), give headwise.wrap a text encoder, or give images with labels: they "
            "are classified by the means of their classes, without texts."
        )
    if pairs.kind is not None:
        return _cola(model, pairs, goal, cache_dir, reporter)
    if pairs.texts:
        if goal.fitness not in ("auto", "mean_recall"):
            raise HeadwiseError(f"{pairs.name} has captions; its fitness is mean_recall, not {goal.fitness!r}.")
        if goal.templates or goal.class_names:
            raise HeadwiseError(f"{pairs.name} has captions; templates and class names are for sources with labels.")
        texts = embed_texts(model, pairs.texts, cache_dir=cache_dir, reporter=reporter)
        task = Task("retrieval", "mean_recall", texts, pairs.hash, cut=_cut(model, pairs.texts, reporter))
        return _distracted(task, model, pairs, goal.distractors, cache_dir, reporter)
    if pairs.labels is None:
        raise HeadwiseError(f"{pairs.name} has neither captions nor labels; one of them is needed.")
    names = class_names(goal.class_names) if goal.class_names else pairs.class_names
    if not names or len(names) < 2:
        raise HeadwiseError(f"{pairs.name}: {len(names or ())} class names; classification needs 2 or more.")
    patterns = templates(goal.templates) if goal.templates else pairs.templates or templates("openai80")
    (reporter or Silent()).say(f"Zero-shot classification: {len(names):,} classes, {len(patterns)} templates.")
    texts = class_embeddings(model.encode_texts, names, patterns).float().cpu()  # (C, E)
    key = _classes_key([names, patterns], pairs, goal)
    shortened = _cut(model, prompts(names, (max(patterns, key=len),)), reporter)
    return Task("classification", "acc1" if goal.fitness == "auto" else goal.fitness, texts, key, cut=shortened)


def _distracted(
    task: Task, model: Model, pairs: Pairs, given: Given | None, cache_dir: Path | None, reporter: Reporter | None
) -> Task:
    """Retrieval with distractors, where any were given."""
    if given is None:
        return task
    found = distractors_of(given, pairs.texts, pairs.name)
    dropped = f"; {found.dropped:,} others are captions themselves and were left out" if found.dropped else ""
    (reporter or Silent()).say(f"{pairs.name}: {len(found.texts):,} distractors join the captions{dropped}.")
    foreign = embed_texts(model, found.texts, cache_dir=cache_dir, reporter=reporter)
    key = hashlib.sha256(json.dumps([task.key, found.texts]).encode()).hexdigest()[:32]
    return replace(task, key=key, distractors=found, foreign=foreign)


def _cut(model: Model, texts: Sequence[str], reporter: Reporter | None) -> Cut | None:
    """What the model's context does to these texts, said where it does anything."""
    if model.reading is None:
        return None
    found = cut(model.reading, texts)
    if found.texts:
        (reporter or Silent()).say(found.sentence)
    return found


def _mixture(model: Model, pairs: Pairs, goal: Goal, cache_dir: Path | None, reporter: Reporter | None) -> Task:
    if goal != Goal():
        raise HeadwiseError(
            f"{pairs.name} is a mixture: give fitness, templates, class names and distractors in the file."
        )
    tasks = tuple(
        make_task(model, part.pairs, Goal(**dict(part.goal)), cache_dir=cache_dir, reporter=reporter)
        for part in pairs.parts
    )
    facts = [
        [part.name, part.weight, task.kind, task.fitness, task.key]
        for part, task in zip(pairs.parts, tasks, strict=True)
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return Task("mix", "fitness", torch.empty(0), key, tasks)


def _cola(model: Model, pairs: Pairs, goal: Goal, cache_dir: Path | None, reporter: Reporter | None) -> Task:
    assert pairs.kind is not None
    assert model.encode_texts is not None
    fitness = COLA[pairs.kind]
    if goal.fitness not in ("auto", fitness):
        raise HeadwiseError(f"{pairs.name} is of Cola; its fitness is {fitness}, not {goal.fitness!r}.")
    single = pairs.kind == "cola_single_object"
    if goal.class_names or (goal.templates and not single):
        what = "class names" if goal.class_names else "templates"
        raise HeadwiseError(f"{pairs.name} is of Cola and brings its own texts; {what} are for sources with labels.")
    if not single:
        return Task(
            pairs.kind, fitness, embed_texts(model, pairs.texts, cache_dir=cache_dir, reporter=reporter), pairs.hash
        )
    patterns = templates(goal.templates) if goal.templates else ("{c}",)  # the queries as they are
    texts = class_embeddings(model.encode_texts, pairs.class_names or (), patterns).float().cpu()  # (C, E)
    return Task(
        pairs.kind, fitness, texts, hashlib.sha256(json.dumps([pairs.hash, patterns]).encode()).hexdigest()[:32]
    )


def _prototypes(model: Model, pairs: Pairs, goal: Goal, reporter: Reporter) -> Task:
    """Classification of a labelled source by class means, for a model without a text tower."""
    if goal.templates or goal.class_names:
        raise HeadwiseError(
            f"{model.name} has no text tower, so classes are the means of their images; templates and class names "
            "would not be used. Leave them out."
        )
    assert pairs.labels is not None
    names = pairs.class_names or tuple(map(str, range(max(pairs.labels) + 1)))
    reporter.say(f"No text tower: {len(names):,} classes by the means of their own images, each image left out.")
    key = _classes_key(["prototypes", *names], pairs, goal)
    return Task("prototypes", "acc1" if goal.fitness == "auto" else goal.fitness, torch.empty(len(names), 0), key)


def _classes_key(facts: list[object], pairs: Pairs, goal: Goal) -> str:
    """What a classification is made from: where the fitness is over groups the groups, too, which are no part of the data's hash."""
    facts = [facts, pairs.groups] if "group" in goal.fitness else facts
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def embed_texts(
    model: Model, texts: tuple[str, ...], *, cache_dir: Path | None = None, reporter: Reporter | None = None
) -> torch.Tensor:
    """The captions' embeddings, (T, E) float32 on the CPU, computed once and kept between runs.

    Raises:
        HeadwiseError: the cache cannot be written.
    """
    assert model.encode_texts is not None
    reporter = reporter or Silent()
    where = machine(str(next(model.module.parameters()).device))
    facts = [FORMAT, where, model.text_hash, texts_key(model), texts]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    path = cache_folder(cache_dir) / "texts" / f"{key}.safetensors"
    try:
        tensors, about = load_tensors(path)
        if about["key"] == key and len(tensors["texts"]) == len(texts):
            return tensors["texts"]
    except FileNotFoundError:
        pass
    except (OSError, Damaged):
        reporter.say(f"The captions' embeddings in {path} are damaged; they are made again.")
    unique = sorted(dict.fromkeys(texts), key=len)  # texts of like length share little padding
    found: list[torch.Tensor] = []
    with reporter.stage("Embedding captions", len(unique), "captions") as advance:
        for start in range(0, len(unique), TEXTS_AT_ONCE):
            part = unique[start : start + TEXTS_AT_ONCE]
            found.append(model.encode_texts(part).float().cpu())
            advance(len(part))
    place = {text: i for i, text in enumerate(unique)}
    embeddings = torch.cat(found)[[place[text] for text in texts]].contiguous()  # (T, E)
    write_files(path.parent, {path.name: dump_tensors({"texts": embeddings}, {"key": key})}, advice=OTHER_CACHE)
    return embeddings
