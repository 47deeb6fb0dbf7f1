"""A mask folded into an ordinary model folder with no extra inference cost: folded, written, checked, put in place.

In: a model, a mask that folds, a folder. Out: the folder, and a `MergeReport` of how close it is. The folder appears
under its name after it was loaded again and compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.applied.check import compare, masked_embeddings, probe_batch
from headwise.applied.fold import changes, check_folds, check_plain
from headwise.applied.write import write
from headwise.edits.artefact import MASK_FILE, write_into
from headwise.edits.card import CARD_FILE, plain_card
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import new_folder
from headwise.towers.base import Model
from headwise.towers.fits import check_fits, check_functions, check_present

if TYPE_CHECKING:
    from headwise.evaluation.engine import Means, Pixels


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote and how close it is.

    Arguments:
        folder: the merged model.
        largest_difference: between an embedding of the merged model and one of the masked live model, absolute.
        relative_difference: the same, divided by the largest absolute value in the embeddings.
        dtype: the precision of the saved weights, that of the most of them first.
        images: how many images were compared.
        rounding: the largest step from a folded weight to its saved precision, relative to the largest weight of its
            tensor; 0 where nothing was rounded. The differences above include what it does.
    """

    folder: Path
    largest_difference: float
    relative_difference: float
    dtype: str
    images: int
    rounding: float = 0.0

    @property
    def sentence(self) -> str:
        """For a terminal."""
        rounded = (
            f", rounded to it by at most {self.rounding:.2e} of a tensor's largest weight" if self.rounding else ""
        )
        return (
            f"in {self.dtype}{rounded}. Largest difference to the masked model: {self.largest_difference:.2e} "
            f"({self.relative_difference:.2e} relative) on {self.images} images."
        )


def merge(
    model: Model,
    mask: Mask,
    folder: str | Path,
    *,
    means: Means | None = None,
    pixels: Pixels | None = None,
    card: str | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    check_weights: bool = True,
) -> MergeReport:
    """Write the refined model as a folder that its library loads without headwise, and check it.

    The folder is loaded again from the disk and its embeddings are compared with those of the live model under
    the mask, in float32. It appears under its name only when that comparison has passed.

    Arguments:
        model: unchanged when this returns.
        mask: for the model's grid, of an operator that folds.
        folder: must not exist, or be empty, or be a former merge and `overwrite` be set.
        means: as for `folded`.
        pixels: preprocessed images to compare on, beside fixed random ones; the first 32 are used.
        card: the text of the model card; None writes a short one.
        tolerance: the largest difference allowed, relative to the largest value in the embeddings.
        overwrite: replace a former merge.
        check_weights: compare the model's weights with those that the mask was found on.

    Raises:
        HeadwiseError: the mask does not fit or does not fold, the folder is taken or cannot be written, or the
            merged model differs from the masked one. Then nothing is left behind.
    """
    folder = Path(folder).absolute()
    _check_place(folder, overwrite)
    if means is not None:
        from headwise.evaluation.engine import with_means

        mask = with_means(mask, means)
    check_present(model.tower)
    check_plain(model.module)
    check_fits(model.tower, mask, check_weights=check_weights)
    check_functions(model, mask, check_weights=check_weights)
    check_folds(model.tower, mask)
    edits = changes(model.tower, mask, model.module)
    batch = probe_batch(model.tower, pixels)
    wanted = masked_embeddings(model, mask, batch)
    with new_folder(folder) as partial:
        written = write(model, edits, partial)
        (partial / CARD_FILE).write_text(plain_card(mask, merged=True) if card is None else card, encoding="utf-8")
        write_into(mask, partial)
        mode = (partial / MASK_FILE).stat().st_mode  # safetensors lets nobody but the owner read its files
        for path in filter(Path.is_file, partial.rglob("*")):
            path.chmod(mode)
        difference, relative = compare(partial, model, edits, written, batch, wanted, tolerance)
        _check_replaces(partial, folder)
    dtypes = ", ".join(str(dtype).removeprefix("torch.") for dtype in written.dtypes)
    return MergeReport(folder, difference, relative, dtypes, len(batch), written.rounding)


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise HeadwiseError(f"{folder} is a file. Give a folder for the merged model.")
    if not any(folder.iterdir()):
        return
    if not (folder / MASK_FILE).is_file():
        raise HeadwiseError(f"{folder} holds other files, not a former merge. Give a new folder for the merged model.")
    if not overwrite:
        raise HeadwiseError(f"{folder} already holds a merged model. Give a new folder, or allow it to be replaced.")


def _check_replaces(partial: Path, folder: Path) -> None:
    """
    Raises:
        HeadwiseError: a file that replacing the folder would delete without writing it anew.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    extra = sorted(there - {path.name for path in partial.iterdir()})
    if extra:
        raise HeadwiseError(
            f"{folder} also holds {', '.join(extra)}, which a merge does not write and replacing it would delete. "
            "Give a new folder for the merged model."
        )
