"""What every verb begins with: model and pairs as users give them, opened and prepared.

In: names, folders, objects. Out: `Model`, `Pairs`, `Mask`, `Bench`. Every refusal of user input that does not need a run
is made here or below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headwise.checked import sealed
from headwise.data.pairs import Pairs, joined
from headwise.data.read import read, read_beside
from headwise.data.seen import recognised, remembered, without
from headwise.data.splits import Splits, split
from headwise.edits.card import CARD_FILE, is_users_own
from headwise.errors import HeadwiseError
from headwise.evaluation.crew import Staff
from headwise.evaluation.crew.work import named
from headwise.evaluation.layout import check_device, check_plan
from headwise.evaluation.profile import Profile
from headwise.jobs.steps.anchoring import Anchored, anchored
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.clean import apart
from headwise.jobs.steps.progress import Reporter, counted
from headwise.jobs.steps.tasks import Goal
from headwise.staging import clean
from headwise.towers import Model, load
from headwise.towers.overrides import Overrides

ModelLike = str | Model
# what headwise writes into an output folder; a study under any name that begins so, since a damaged one is moved away
_OWN = re.compile(
    r"(study|sweep|kept|explanation)[\w-]*\.sqlite.*|explanation(\.json|\.md|\.safetensors.*)?|(deltas|bp|learned|trained|refit)-.*|baselines|search-embeddings"
    r"|(results|splits|sweep|compare|front|transfer)\.json|(report|compare|front|transfer)\.md|report\.html"
    r"|(heads|compare|front|transfer)\.png|head_mask\.(json|safetensors)|run\.toml|model|tuned-model|mask|explored-\d+|former-(model|mask)-\d+|\.headwise-.*"
)
PairsLike = object  # anything that headwise.read takes


@dataclass(frozen=True)
class Machine:
    """Where and in what precision to run.

    Arguments:
        dtype: `auto`, `float32` or `bfloat16`.
        device: `cpu`, `cuda`, …
        chunk: images a chunk; None: what fits the processor.
        cache_dir: where preprocessed images and caption embeddings are kept.
        cache_size: most bytes of preprocessed images to keep there; None: $HEADWISE_CACHE_SIZE, or no bound.
        overrides: what a model given by name does otherwise than its files say.
        staff: who runs the masks: this process, processes beside it, a cluster.
        profile: notes where the time goes; of this process alone.

    Raises:
        HeadwiseError: an unknown precision, a chunk of no image, or more workers than GPUs.
    """

    dtype: str = "auto"
    device: str = "cpu"
    chunk: int | None = None
    cache_dir: Path | None = None
    cache_size: int | None = None
    overrides: Overrides = field(default_factory=Overrides)
    staff: Staff = field(default_factory=Staff)
    profile: Profile | None = None

    def __post_init__(self) -> None:
        check_plan(self.dtype, self.chunk)
        self.staff.count(self.device)


def dump(results: Mapping) -> str:
    """Results as the text of a JSON file, their checksum in it (`checked.read_results`)."""
    return json.dumps(sealed(results), indent=2, ensure_ascii=False) + "\n"


def check_folder(folder: Path) -> None:
    """Look at an output folder before any work, and remove what a killed run left there.

    Raises:
        HeadwiseError: it cannot be looked at, or holds something that headwise did not write.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise HeadwiseError(f"{folder} is a file; the output has to be a folder.")
        if not folder.is_dir():
            return
        clean(folder)
        found = sorted(path.name for path in folder.iterdir())
        others = [name for name in found if not _OWN.fullmatch(name)]
        if CARD_FILE in others and not is_users_own(folder / CARD_FILE):
            others.remove(CARD_FILE)
    except OSError as error:
        raise HeadwiseError(
            f"{folder} cannot be used as the output folder: {error.strerror}. Choose another one, or mend its rights."
        ) from error
    if others and not any(name.endswith(".sqlite") for name in found):
        raise HeadwiseError(
            f"{folder} is not empty and holds no headwise study, but {others[0]}. Choose another output folder, "
            "or empty this one."
        )


def load_model(model: ModelLike, machine: Machine) -> Model:
    """The model of that name on the machine's device, with the machine's overrides; a loaded one as it is.

    Raises:
        HeadwiseError: overrides that a loaded model was not loaded with, or workers for one that has no name.
    """
    if isinstance(model, Model):
        if any(model.overrides.given.get(name) != value for name, value in machine.overrides.given.items()):
            raise HeadwiseError("Overrides are for a model given by name; pass them to headwise.load instead.")
        if machine.staff.count(machine.device) or machine.staff.ray is not None:
            named(model)  # workers have to load it
        return model
    check_device(machine.device)
    return replace(load(model, device=machine.device, **machine.overrides.given), name=model)


def read_pairs(
    pairs: PairsLike, reporter: Reporter, columns: Mapping[str, object], *, beside: bool = False, bare: bool = False
) -> Pairs:
    """The pairs of a source, with progress, and a line on rows that were skipped.

    Arguments:
        beside: it is not the source that the columns were named for (`data.read.read_beside`).
        bare: the images alone are wanted; with `beside`.
    """
    with counted(reporter, "Checking images", "images") as tell:
        options = dict[str, Any](columns)
        given = (
            read_beside(pairs, options, bare=bare, progress=tell) if beside else read(pairs, progress=tell, **options)
        )
    if given.skipped:
        reporter.say(f"{given.skipped:,} bad rows of {given.name} were skipped.")
    for note in given.notes:
        reporter.say(f"{given.name}: {note}")
    return given


def whole(pairs: Pairs) -> Splits:
    """All images as one split."""
    everything = tuple(range(len(pairs)))
    return Splits(everything, everything, everything, how="all images", hash=pairs.hash)


def split_for(pairs: Pairs, goal: Goal | None, by: str, seed: int) -> Splits:
    """Search, pick and test of these pairs; for a fitness over groups they are an attribute that every split needs, not
    something to hold out.

    Raises:
        HeadwiseError: as `split`.
    """
    return split(pairs, by=by, seed=seed, keep_groups=goal is None or "group" not in goal.fitness)


def kept_benches(
    model: Model,
    keep: Sequence[PairsLike],
    main: Pairs,
    folder: Path | None,
    seed: int,
    machine: Machine,
    reporter: Reporter,
    split_by: str = "auto",
    columns: Mapping[str, object] | None = None,
) -> list[Bench]:
    """The kept domains, each with a study of its own; the goal is what the source itself says.

    Images that the data to improve on have too are left out.

    Arguments:
        split_by: only `image` counts here, as the word of a user who insists on splitting what is all for testing.
        columns: those of the main data, which count where a kept domain has them.
    """
    benches, options = [], {**(columns or {}), "equal_captions": main.equal_captions}
    for number, source in enumerate(keep, 1):
        pairs = apart(read_pairs(source, reporter, options, beside=True), main, reporter)
        splits = split(pairs, by="image" if split_by == "image" else "auto", seed=seed)
        reporter.say(f"Kept domain {pairs.name}: {len(pairs):,} images; split {splits.how}.")
        study = folder and folder / f"kept-{number}.sqlite"
        benches.append(prepared(model, pairs, splits, study, None, machine, reporter))
    return benches


def anchor_images(
    source: PairsLike,
    main: Bench,
    model: Model,
    machine: Machine,
    reporter: Reporter,
    columns: Mapping[str, object],
) -> Anchored:
    """Old images that learned rungs should leave where they are, without those that the data to improve on have too, and those
    that kept domains are judged by: what training holds in place would tell nothing there.

    Arguments:
        source: a folder of images, or what `headwise.read` takes; captions are not read.
        main: the data to improve on, with its kept domains.
        columns: those of the main data, which count where this source has them.

    Raises:
        HeadwiseError: as `headwise.read`; fewer than two images are left; one cannot be decoded.
    """
    images = apart(read_pairs(source, reporter, columns, beside=True, bare=True), main.pairs, reporter)
    judged = [remembered(one.pairs, (*one.splits.pick, *one.splits.test)) for one in main.kept]
    if (gone := recognised(images, judged)).any():
        images = without(images, gone)
        reporter.say(
            f"Anchors {images.name}: {int(gone.sum()):,} images by which a kept domain is judged are left out."
        )
    options = {"device": machine.device, "chunk": machine.chunk, "cache_dir": machine.cache_dir}
    return anchored(images, model, reporter, cache_size=machine.cache_size, **options)


def prepared(
    model: Model,
    pairs: Pairs,
    splits: Splits,
    study: Path | None,
    goal: Goal | None,
    machine: Machine,
    reporter: Reporter,
) -> Bench:
    """`prepare` with the machine's precision, device and cache."""
    return prepare(
        model,
        pairs,
        splits,
        goal=goal,
        dtype=machine.dtype,
        device=machine.device,
        chunk=machine.chunk,
        study=study,
        cache_dir=machine.cache_dir,
        cache_size=machine.cache_size,
        staff=machine.staff,
        profile=machine.profile,
        reporter=reporter,
    )


def choose_split(pairs: Pairs, name: str) -> Pairs:
    """The images of one split of the source's own.

    Raises:
        HeadwiseError: the source has no splits, or none of that name.
    """
    if pairs.parts:
        return joined(pairs.name, [replace(part, pairs=choose_split(part.pairs, name)) for part in pairs.parts])
    if pairs.splits is None:
        raise HeadwiseError(f"{pairs.name} has no split column, so there is no split {name!r} to choose.")
    indices = [i for i, given in enumerate(pairs.splits) if given == name]
    if not indices:
        raise HeadwiseError(f"{pairs.name} has no split {name!r}; it has: {', '.join(sorted(set(pairs.splits)))}.")
    return pairs.subset(indices)
