"""export: the refined model in the form that it is used in: ONNX, pruned, another library's folder, changed tensors.

In: a model, a mask, a door (`--to`). Out: a folder, checked against the live model before it takes its name, with a
card and a list of its files' SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwise.data.cache import pixels
from headwise.data.pairs import Pairs
from headwise.data.read import asked_for, check_keywords
from headwise.data.splits import split
from headwise.edits.artefact import MASK_FILE
from headwise.edits.card import CARD_FILE
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import new_folder
from headwise.jobs.steps.masks import check_bound, read_mask
from headwise.jobs.steps.opening import Machine, ModelLike, PairsLike, load_model, prepared, read_pairs
from headwise.jobs.steps.progress import Reporter, usual
from headwise.shipping.card import export_card
from headwise.shipping.doors import DOORS, write_door
from headwise.shipping.onnx import check_precision, write_onnx
from headwise.shipping.openvino import check_openvino, to_openvino
from headwise.sums import SUMS_FILE, write_sums
from headwise.towers.base import Model
from headwise.towers.fits import check_fits, check_functions, check_present
from headwise.wording import option

GRAPHS = ("onnx", "openvino")  # networks that their own library runs
FORMS = (*GRAPHS, "torch", *DOORS)
COMPARED = 48  # pictures that an export is compared on, evenly spread over the data
CALIBRATED = 512  # and that int8 is calibrated on


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Arguments:
        folder: where it is.
        to: the form.
        sentence: what was checked.
        facts: the same as plain values.
    """

    folder: Path
    to: str
    sentence: str
    facts: Mapping[str, object]


def export(
    model: ModelLike,
    out: str | Path,
    *,
    edits: Mask | str | Path | None = None,
    to: str = "onnx",
    precision: str = "float32",
    prune: bool = True,
    on: PairsLike | None = None,
    most_loss: float = 0.5,
    licence: str = "",
    machine: Machine | None = None,
    check_weights: bool = True,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> ExportReport:
    """Write a model, edited or not, in the form that it is used in.

    Arguments:
        out: the folder to write.
        edits: a mask, a folder that holds one, or text such as `L10.H3=zero`; None: the model as it is.
        to: one of `FORMS`.
        precision: `onnx`: `float32`, `float16` or `int8`; `openvino`: of the stored weights, `float32` or `float16`.
        prune: cut out the heads that the edits remove, where they fold.
        on: pairs like those that the model will see: the export is compared on their pictures, int8 is calibrated on
            their search split and held to its recall on the pick split. None: the packaged drawings; not for int8.
        most_loss: int8: points of fitness that it may lose.
        licence: what the card says; empty: that the base model's applies.
        overwrite: replace a former export.
        columns: how the pairs are read, as for `headwise.read`.
        others: as for `refine`.

    Raises:
        HeadwiseError: a mask that does not fit, a door that is not open to it, an export that differs from the live
            model, or a folder that is taken. Then nothing is left behind.
    """
    machine, reporter = replace(machine or Machine(), dtype="float32"), reporter or usual()
    if to not in FORMS:
        raise HeadwiseError(f"{to!r} is not a form to export to. Use one of: {', '.join(FORMS)}.")
    check_precision(precision)
    if to == "openvino":
        check_openvino(precision)
    check_keywords(columns)
    if to not in GRAPHS and (precision != "float32" or on is not None):
        set_alone = option("precision", precision) if precision != "float32" else option("on", "PAIRS")
        raise HeadwiseError(
            f"{set_alone} is for {' and '.join(GRAPHS)} alone. Leave it out, or write {option('to', 'onnx')}."
        )
    if on is None and (given := asked_for(columns)):
        raise HeadwiseError(f"{option(given[0])} says how {option('on')} is read, and no pairs were given there.")
    if precision == "int8" and on is None:
        raise HeadwiseError(
            "int8 is calibrated on pairs like those that the model will see, and held to its recall on others of them: "
            f"give them with {option('on', 'PAIRS')}."
        )
    place = Path(out).absolute()
    check_place(place, overwrite)
    ready = load_model(model, machine)
    mask = read_mask(edits, ready)
    check_bound(mask)
    check_present(ready.tower)
    check_fits(ready.tower, mask, check_weights=check_weights)
    check_functions(ready, mask, check_weights=check_weights)
    with new_folder(place) as partial:
        if to not in GRAPHS:
            facts, sentence = write_door(ready, mask, partial, to, prune=prune)
        else:
            facts, sentence = _graphs(
                ready, mask, partial, to, precision, prune, on, most_loss, machine, reporter, columns
            )
        card = export_card(to, ready.name, mask, facts, licence=licence)
        (partial / CARD_FILE).write_text(card, encoding="utf-8")
        write_sums(partial)
        mode = (partial / CARD_FILE).stat().st_mode  # safetensors lets nobody but the owner read its files
        for path in filter(Path.is_file, partial.rglob("*")):
            path.chmod(mode)
    return ExportReport(place, to, sentence, facts)


def check_place(place: Path, overwrite: bool) -> None:
    """
    Raises:
        HeadwiseError: the folder is taken by something that is no former export, or `overwrite` is not set.
    """
    if not place.exists() and not place.is_symlink():
        return
    if not place.is_dir():
        raise HeadwiseError(f"{place} is a file. Give a folder for the export.")
    if not any(place.iterdir()):
        return
    if not all((place / name).is_file() for name in (SUMS_FILE, MASK_FILE)):
        raise HeadwiseError(f"{place} holds other files, not a former export. Give a new folder.")
    if not overwrite:
        raise HeadwiseError(
            f"{place} already holds an export. Give a new folder, or replace it with {option('overwrite', 'True')}."
        )
    listed = {line.partition("  ")[2] for line in (place / SUMS_FILE).read_text(encoding="utf-8").splitlines()}
    there = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    if extra := sorted(there - listed - {SUMS_FILE}):
        raise HeadwiseError(f"{place} also holds {extra[0]}, which is not of the export. Give a new folder.")


def _graphs(
    model: Model,
    mask: Mask,
    folder: Path,
    to: str,
    precision: str,
    prune: bool,
    on: PairsLike | None,
    most_loss: float,
    machine: Machine,
    reporter: Reporter,
    columns: Mapping[str, object],
) -> tuple[dict[str, object], str]:
    """ONNX or OpenVINO files, compared, and for int8 scored; the facts and a sentence."""
    pairs = read_pairs("demo" if on is None else on, reporter, columns)
    splits = split(pairs) if precision == "int8" else None  # nothing is read of its test split
    checked = _spread(range(len(pairs)) if splits is None else splits.pick, COMPARED)
    searched = [] if splits is None else _spread(splits.search, CALIBRATED)
    images, texts = _pictures(model, pairs, checked, machine, reporter), _texts(model, pairs, checked)
    report = write_onnx(
        model,
        mask,
        folder,
        precision=precision if to == "onnx" else "float32",
        prune=prune,
        images=images,
        texts=texts,
        calibration=_pictures(model, pairs, searched, machine, reporter) if searched else None,
        calibration_texts=_texts(model, pairs, searched) if searched else (),
    )
    if to == "openvino":
        report = to_openvino(model, folder, report, precision=precision, images=images, texts=texts)
    facts: dict[str, object] = asdict(report)
    if splits is None:
        return facts, report.sentence
    write_sums(folder)  # an export that is opened has its list of files
    bench = prepared(model, pairs, splits, None, None, machine, reporter)
    live = bench.evaluator("pick")([mask])[0].fitness
    small = load_model(str(folder), machine)
    other = prepared(small, pairs, splits, None, None, machine, reporter)
    lost = 100 * (live - other.evaluator("pick")([Mask.identity(small.tower.grid)])[0].fitness)
    facts |= {"fitness": bench.task.fitness, "points_lost": round(lost, 3), "pick_images": len(splits.pick)}
    scored = f"{bench.task.fitness} of {len(splits.pick):,} pick images: {100 * live:.2f}, {lost:.2f} points lost"
    if not lost <= most_loss:
        raise HeadwiseError(
            f"The int8 model is not close enough ({scored}; {most_loss:g} are allowed), so it was not kept. Give more "
            f"pairs, allow more with {option('most_loss', 'POINTS')}, or export float16."
        )
    return facts, f"{report.sentence} {scored}."


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """So many of these, evenly spread."""
    chosen = np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int)
    return [indices[i] for i in dict.fromkeys(chosen.tolist())]


def _pictures(model: Model, pairs: Pairs, indices: list[int], machine: Machine, reporter: Reporter) -> torch.Tensor:
    """Preprocessed pictures, (B, 3, R, R) float32."""
    options = {"cache_dir": machine.cache_dir, "cache_size": machine.cache_size, "say": reporter.say}
    return pixels(pairs.subset(indices), model, **options)[: len(indices)]


def _texts(model: Model, pairs: Pairs, indices: list[int]) -> list[str]:
    """Their captions, or the names of classes; none for a model without a text tower."""
    if model.tokenize is None:
        return []
    texts = pairs.subset(indices).texts or tuple(f"a photo of a {name}" for name in pairs.class_names or ())
    return list(dict.fromkeys(texts))[: 2 * len(indices)]
