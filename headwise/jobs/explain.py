"""explain: what every head does, with evidence.

In: a model and pairs, or a folder of `refine`; perhaps a mask whose heads are compared with the others. Out: what
explanation.json holds, and the files of docs/explanation.md. The test split is never read. Its steps are in
`steps/explaining.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from headwise.checked import array_checksum
from headwise.data.cache import pixels as decoded
from headwise.data.pairs import Pairs
from headwise.data.splits import Splits, check_split_by
from headwise.edits.edit import canonical
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.layout import plan
from headwise.evaluation.study import Study
from headwise.explanation import cards
from headwise.explanation.effects import DONE
from headwise.explanation.evidence import captions_of, repeated
from headwise.explanation.examples import extremes
from headwise.explanation.patterns import patterns_json
from headwise.explanation.texts import read_texts
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench, as_recorded, fingerprint
from headwise.jobs.steps.explaining import (
    ARRAYS,
    MAPS,
    STUDY,
    Subject,
    arrays_for,
    draw,
    find_attention,
    find_attributes,
    find_direct,
    find_effects,
    find_labels,
    of_study,
    width_of,
)
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.masks import read_mask
from headwise.jobs.steps.opening import (
    Machine,
    ModelLike,
    PairsLike,
    check_folder,
    dump,
    load_model,
    read_pairs,
    split_for,
)
from headwise.jobs.steps.progress import Reporter, counted, usual
from headwise.jobs.steps.tasks import Goal, make_task
from headwise.processor import machine
from headwise.towers.base import Model
from headwise.towers.fits import check_fits
from headwise.towers.probes import pixels_key

MOST_IMAGES = 1000
JSON_FILE, TEXT_FILE = "explanation.json", "explanation.md"


def explain(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path,
    *,
    mask: Mask | str | Path | None = None,
    operator: str = "zero",
    texts: str | Path | None = None,
    most_images: int = MOST_IMAGES,
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    seed: int = 0,
    check_weights: bool = True,
    reporter: Reporter | None = None,
    **columns: object,
) -> Findings:
    """What every head does: effects, labels with their evidence, attributes, attention, examples.

    Labels are found on the search split and checked on the pick split; the test split is never read. Effects are
    computed in float32, whatever the machine: they are small differences.

    Arguments:
        model: as for `refine`, or a folder that it wrote: its model, and its mask's heads are the edited ones.
        out: the output folder: `explanation.json`, `explanation.md`, `explanation.safetensors`,
            `explanation.sqlite`. The same call on the same folder continues where it was interrupted.
        mask: whose heads to compare with the others.
        operator: what a removed head emits.
        texts: a file of candidate texts, one a line, instead of the captions' n-grams and headwise's own list.
        most_images: at most so many for labelling and so many for checking.
        others: as for `refine`.

    Returns:
        What explanation.json holds (docs/explanation.md).

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    reporter, machine, operator = reporter or usual(), machine or Machine(), canonical(operator)
    check_split_by(split_by)
    _check_most(most_images)
    own_texts = read_texts(texts) if texts is not None else []
    check_folder(Path(out))
    model, mask = of_study(model, mask)
    ready = load_model(model, machine)
    ready.tower.check_edit(operator)
    chosen = None if mask is None else read_mask(mask, ready)
    if chosen is not None:
        check_fits(ready.tower, chosen, check_weights=check_weights)
    given = read_pairs(pairs, reporter, columns)
    splits = split_for(given, goal, split_by, seed)
    as_recorded(Path(out) / STUDY, reporter)
    subject = opened(ready, given, splits, goal, machine, reporter, most_images)
    subject = replace(subject, operator=operator, edited=chosen)
    return explained(subject, Path(out), own_texts, machine.cache_dir, seed)


def opened(
    model: Model,
    pairs: Pairs,
    splits: Splits,
    goal: Goal | None,
    machine: Machine,
    reporter: Reporter,
    most: int = MOST_IMAGES,
) -> Subject:
    """Decode the images, embed the captions where the model can."""
    _check_most(most)
    dtype = "float32" if machine.dtype == "auto" else machine.dtype
    layout = plan(model.tower, dtype=dtype, device=machine.device, chunk=machine.chunk)
    task = None
    if model.encode_texts is None and pairs.labels is None:
        reporter.say(f"{model.name} has no text tower: no labels and no recall; all else is done.")
    else:
        task = make_task(model, pairs, goal or Goal(), cache_dir=machine.cache_dir, reporter=reporter)
    with counted(reporter, "Decoding images", "images") as tell:
        cache = decoded(
            pairs, model, cache_dir=machine.cache_dir, cache_size=machine.cache_size, say=reporter.say, progress=tell
        )
    tower = model.tower.cast(layout.device, torch.float32)
    return Subject(model, tower, pairs, *draw(splits, pairs, most), task, cache, layout, reporter)


def _check_most(most: int) -> None:
    """
    Raises:
        HeadwiseError: fewer than two images.
    """
    if most < 2:
        raise HeadwiseError(f"{most} images are too few to explain anything; give 2 or more, better some hundreds.")


def explain_bench(bench: Bench, mask: Mask, folder: Path, seed: int, machine: Machine) -> Findings:
    """`explain` on what `refine` has open, for the mask that it chose."""
    layout = plan(bench.model.tower, dtype="float32", device=bench.layout.device)
    tower = bench.model.tower.cast(layout.device, torch.float32)
    label, check = draw(bench.splits, bench.pairs, MOST_IMAGES)
    subject = Subject(
        bench.model, tower, bench.pairs, label, check, bench.task, bench.cache, layout, bench.reporter, edited=mask
    )
    return explained(subject, folder, [], machine.cache_dir, seed)


def explained(subject: Subject, folder: Path, own_texts: list[str], cache_dir: Path | None, seed: int) -> Findings:
    """All steps, and the files."""
    from headwise.reports.explanation import explanation_text

    subject.tower.check_edit(subject.operator)
    width = width_of(subject)
    arrays = arrays_for(subject, folder, width)
    with Study(folder / STUDY, _fingerprint(subject), subject.reporter.say) as study:
        if not arrays.begin():
            if study.read(DONE):
                subject.reporter.say(f"{arrays.path} is gone or damaged; it is made again.")
            study.note(DONE, {})
        effects = find_effects(subject, arrays, study)
    direct = find_direct(subject, arrays)
    measured = find_attributes(subject, arrays, effects)
    labelled = find_labels(subject, effects, direct, own_texts, cache_dir, seed)
    sizes = effects.sizes()  # (heads, N)
    shown = [extremes(one) for one in sizes]
    looks = find_attention(
        subject, arrays, {head: shown[row][0][:MAPS] for row, head in enumerate(effects.heads)}
    )  # fmt: skip
    edited = set(subject.edited.heads) if subject.edited else set()
    places = {head: i for i, head in enumerate(direct.heads)}
    heads = []
    with subject.reporter.stage("Writing down heads", len(effects.heads), "heads") as advance:
        for row, head in enumerate(effects.heads):
            own = direct.values[places[head]] if head in places else None
            facts = {
                "effect": cards.effect_json(effects, row, own),
                "labels": labelled.evidence[row] if labelled else None,
                "text_span": labelled.spans[row] if labelled else None,
                "attributes": cards.attributes_json(measured.names, measured.found, row),
                "attention": cards.attention_json(looks[head]),
                "examples": cards.examples_json(sizes[row], *shown[row]),
                "queries": cards.queries_json(effects, subject.checked, row),
            }
            heads.append(cards.head_json(subject.tower.grid, head, head in edited, facts))
            advance(1)
    results = {
        **_about(subject, seed),
        "identity": dict(effects.scores["identity"].metrics) if effects.scores else None,
        "direct": {"error": direct.error, "why_not": direct.why_not},
        "candidates": labelled and _counts(labelled.words.themes),
        "attributes": list(measured.names),
        "unreadable": [subject.pairs.ids[subject.images[i]] for i in measured.unreadable],
        "repeated": repeated(heads),
        "patterns": patterns_json(heads, seed=seed),
        "heads": heads,
        "images": cards.images_json(subject.pairs, subject.images, captions_of(subject.pairs), effects.label),
        "arrays": {"file": ARRAYS, **{name: list(shape) for name, (_, shape) in arrays.shapes.items()}},
    }
    if "attention" in arrays.shapes:
        results["arrays"]["crc32"] = array_checksum(arrays.open("attention", "r"))  # what a page reads back
    del effects, direct, measured  # their arrays are mapped from the file that gets its name now
    arrays.finish()
    write_files(folder, {TEXT_FILE: explanation_text(results), JSON_FILE: dump(results)})
    return Findings(results)


def _about(subject: Subject, seed: int) -> dict:
    from headwise.version import __version__

    tower, pairs = subject.tower, subject.pairs
    return {
        "format": 1,
        "headwise_version": __version__,
        "model": {
            "name": subject.model.name,
            "family": tower.family,
            "pooling": tower.pooling,
            "layers": list(tower.grid.layers),
            "pool_heads": tower.grid.pool,
            "weights_hash": subject.model.tower.weights_hash,
        },
        "data": {
            "source": pairs.name,
            "hash": pairs.hash,
            "label_images": len(subject.label),
            "check_images": len(subject.check),
        },
        "settings": {
            "operator": subject.operator,
            "mask": None if subject.edited is None else str(subject.edited),
            "fitness": subject.task and subject.task.fitness,
            "dtype": subject.layout.dtype,
            "device": subject.layout.device,
            "chunk": subject.layout.chunk,
            "seed": seed,
        },
    }


def _counts(themes: tuple[str, ...]) -> dict[str, int]:
    return {theme: themes.count(theme) for theme in dict.fromkeys(themes)}


def _fingerprint(subject: Subject) -> Mapping[str, object]:
    """All that effects and scores depend on."""
    hashes = [subject.pairs.images[i].hash for i in subject.images]
    about = {
        "operator": subject.operator,
        "images": _digest(hashes),
        "label": len(subject.label),
    }
    if subject.task is None:
        keys = {"weights": subject.model.tower.weights_hash, "preprocessing": pixels_key(subject.model.preprocess)}
        return {
            "model": keys,
            "precision": repr(subject.layout),
            "machine": machine(subject.layout.device),
            "explain": about,
        }
    whole = Splits(subject.label, subject.check, (), "", about["images"])
    return {**fingerprint(subject.model, subject.pairs, whole, subject.task, subject.layout), "explain": about}


def _digest(hashes: list[str]) -> str:
    import hashlib

    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
