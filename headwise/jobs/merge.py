"""merge: a mask folded into an ordinary model folder.

In: a model, a mask (for edits `mean` perhaps pairs to compute its constants on). Out: a folder that the model's
own library loads, checked against the masked model on probe images.
"""

from __future__ import annotations

from pathlib import Path

from headwise.applied.merge import MergeReport
from headwise.applied.merge import merge as write_merged
from headwise.data.read import asked_for, check_keywords
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import head_means, with_means
from headwise.jobs.steps.masks import check_bound, read_mask
from headwise.jobs.steps.opening import Machine, ModelLike, PairsLike, load_model, prepared, read_pairs, whole
from headwise.jobs.steps.progress import Reporter, usual
from headwise.shipping.card import merged_card
from headwise.wording import option


def merge(
    model: ModelLike,
    mask: Mask | str | Path,
    out: str | Path,
    *,
    means_from: PairsLike | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
    overwrite: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> MergeReport:
    """Fold a mask into the model's weights and write an ordinary model folder, checked against the masked model.

    Arguments:
        mask: a mask, a folder that holds one, or text such as `L10.H3=zero`.
        out: the folder to write.
        means_from: for edits `mean` without constants: pairs to compute them on.
        columns: how these pairs are read, as for `headwise.read`.
        others: as for `refine`.

    Raises:
        HeadwiseError: a mask that does not fit or does not fold, or a folder that is taken.
    """
    machine, reporter = machine or Machine(), reporter or usual()
    check_keywords(columns)
    if means_from is None and (given := asked_for(columns)):
        raise HeadwiseError(
            f"{option(given[0])} says how {option('means_from')} is read, and no pairs were given there."
        )
    ready = load_model(model, machine)
    chosen = read_mask(mask, ready)
    if not chosen.is_bound and means_from is not None:
        given = read_pairs(means_from, reporter, columns)
        bench = prepared(ready, given, whole(given), None, None, machine, reporter)
        chosen = with_means(chosen, head_means(bench.tower, bench.cache, bench.layout))
    check_bound(chosen, f", or pairs to compute it on with {option('means_from', 'PAIRS')}")
    card = merged_card(chosen, ready.tower.family, texts=ready.encode_texts is not None)
    return write_merged(ready, chosen, out, card=card, check_weights=check_weights, overwrite=overwrite)
