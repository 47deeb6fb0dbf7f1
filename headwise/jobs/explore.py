"""explore: the heads of a finished run, live in a browser of this machine.

In: the folder of a `refine`, and the pairs if they have moved. Out: a page that is served until Ctrl-C; masks that were
saved there. The images are of the search split, at most so many; the test split is never read. Its steps are in
`steps/exploring.py` (what is answered) and `steps/serving.py` (to whom).
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headwise.data.cache import pixels
from headwise.data.decode import pillow_warnings
from headwise.data.pairs import Pairs, drawn
from headwise.edits.edit import KINDS
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.fingerprints import recorded
from headwise.evaluation.layout import plan
from headwise.evaluation.streams import Streams
from headwise.jobs.report import finished
from headwise.jobs.steps.exploring import WIDEST, Session
from headwise.jobs.steps.guessing import Guesses, swept_changes
from headwise.jobs.steps.opening import Machine, PairsLike
from headwise.jobs.steps.page import images_of
from headwise.jobs.steps.page_heads import explained_heads
from headwise.jobs.steps.progress import Reporter, counted, usual
from headwise.jobs.steps.reopening import as_written, goal_of, model_of, pairs_of
from headwise.jobs.steps.serving import HOST, Pictures, check_installed, listen, serve, site
from headwise.jobs.steps.tasks import Goal, Task, make_task
from headwise.towers.fits import check_fits

MOST_IMAGES = 1000
SOON = 3.0  # seconds that nobody minds to wait for an answer of all images
FEW = 50  # images that say something
STUDY = "study.sqlite"
LEARNED = ("shift", "spectral")  # their arrays are not to be had from a page


def explore(
    folder: str | Path,
    pairs: PairsLike | None = None,
    *,
    port: int = 0,
    most_images: int = MOST_IMAGES,
    goal: Goal | None = None,
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    opened: Callable[[str], object] | None = None,
    **columns: object,
) -> None:
    """Serve the page of a finished run until Ctrl-C.

    Arguments:
        folder: what `refine` wrote.
        pairs: the source of the run, where it is now; None: where it was.
        port: of this machine; 0: any that is free.
        most_images: at most so many of the search split.
        goal: as it was given to `refine`; its fitness may be left out.
        machine: precision, device, cache; the run's model is loaded with the run's own overrides.
        reporter: where progress goes.
        opened: gets the page's address as soon as it answers.
        columns: passed to `headwise.read`, as they were to `refine`.

    Raises:
        HeadwiseError: no finished run there, a model, pairs or images that are not those of the run or cannot be read
            any more, a port that cannot be used, or the extra `explore` is not installed.
    """
    check_installed()
    folder, reporter = Path(folder), reporter or usual()
    results = finished(folder)
    listening = listen(port)  # before the work, so that a port in use is said at once
    try:
        session = prepare(folder, results, pairs, most_images, goal or Goal(), machine or Machine(), reporter, columns)
        token, port = secrets.token_urlsafe(24), listening.getsockname()[1]
        with as_written(folder):
            page = _page(folder, results, session)
        app = site(session, page, Pictures(lambda number: _webp(session.pairs, number)), token, port)
        if opened:
            opened(f"http://{HOST}:{port}/{token}/")
        serve(app, listening, session.stop)
    finally:
        listening.close()


def prepare(
    folder: Path,
    results: Mapping[str, Any],
    pairs: PairsLike | None,
    most_images: int,
    goal: Goal,
    machine: Machine,
    reporter: Reporter,
    columns: Mapping[str, object],
) -> Session:
    """Model, images, texts, and the streams of the unchanged model.

    Raises:
        HeadwiseError: fewer than two images, or a model, pairs or images that are not those of the run or cannot be read
            any more.
    """
    if most_images < 2:
        raise HeadwiseError(f"{most_images} images are too few to explore; give 2 or more, better some hundreds.")
    model = model_of(folder, results, machine)
    chosen = Mask.from_pretrained(folder)
    check_fits(model.tower, chosen)
    whole = pairs_of(folder, results, pairs, reporter, columns)
    indices = _drawn(folder, whole, most_images)
    task = make_task(model, whole, goal_of(folder, goal, results), cache_dir=machine.cache_dir, reporter=reporter)
    _check_task(folder, task)
    shown = whole.subset(indices)
    with counted(reporter, "Decoding images", "images") as tell:
        cache = pixels(
            shown, model, cache_dir=machine.cache_dir, cache_size=machine.cache_size, say=reporter.say, progress=tell
        )
    layout = plan(
        model.tower,
        dtype=machine.dtype,
        device=machine.device,
        chunk=machine.chunk,
        cache_dir=machine.cache_dir,
    )
    tower = model.tower.cast(layout.device, layout.torch_dtype)
    streams = Streams(tower, cache, layout)
    began = time.monotonic()
    with reporter.stage("The unchanged model", len(shown), "images") as advance:
        before = streams.begin(advance)
    if slow := patience(time.monotonic() - began, len(shown)):
        reporter.say(slow)
    place = {image: row for row, image in enumerate(images_of(folder, "search", whole))}
    known = Guesses(before, swept_changes(folder, [place[image] for image in indices], before))
    return Session(folder, model, shown, indices, whole, task, streams, layout, before, chosen, known)


def patience(seconds: float, images: int) -> str | None:
    """What to expect of clicks where an answer for all images is not at once; None where it is.

    Arguments:
        seconds: that the unchanged model took for all images; a click on the first block takes as long.
        images: how many they are.
    """
    if seconds <= SOON:
        return None
    fewer = int(images * SOON / seconds) // 10 * 10
    advice = f" --most-images {fewer} would make it {SOON:.0f} s." if fewer >= FEW else ""
    return (
        f"After a click on the first block it takes about {seconds:.0f} s until all {images:,} images are through, for later "
        f"blocks less.{advice}"
    )


def _drawn(folder: Path, whole: Pairs, most: int) -> tuple[int, ...]:
    """Images of the search split, drawn by their hashes; of a mixture and of Cola in the source's order.

    Raises:
        HeadwiseError: splits.json cannot be read, or names other images.
    """
    found = drawn(whole, images_of(folder, "search", whole), most)
    return tuple(sorted(found) if whole.parts or whole.kind else found)


def _check_task(folder: Path, task: Task) -> None:
    """
    Raises:
        HeadwiseError: something else would be measured than the run measured; unknown where its study is gone.
    """
    measured = (recorded(folder / STUDY) or {}).get("objective")
    if measured is not None and (measured["fitness"], measured["texts"]) != (task.fitness, task.key):
        raise HeadwiseError(
            f"The run in {folder} measured {measured['fitness']} with other texts than are made here ({task.fitness}). Give "
            "--fitness, --templates, --class-names, --group and --equal-captions as they were given to refine."
        )


def _page(folder: Path, results: Mapping[str, Any], session: Session) -> str:
    from headwise.reports.explore import explore_html

    score = session.first_score
    return explore_html(
        results,
        mask=session.chosen,
        operators=[name for name in session.streams.tower.letters if not KINDS[name].needs and name not in LEARNED],
        widest=WIDEST,
        names=session.pairs.ids,
        points=session.points,
        metrics=list(score.metrics),
        texts=session.model.encode_texts is not None,
        heads=explained_heads(folder, results, session.whole),
    )


def _webp(pairs: Pairs, number: int) -> bytes:
    from headwise.reports.gallery import thumbnail

    with pillow_warnings():
        return base64.b64decode(thumbnail(pairs.images[number]).partition(",")[2])
