"""The refined model as other libraries take it: their own folders, a pruned one, a torch program, the changed tensors.

In: a model, a mask, a door's name. Out: files in a folder, compared with the live model before anybody gets it. ONNX has a
file of its own.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from headwise.applied.check import masked_embeddings, probe_batch
from headwise.applied.fold import changes, check_folds
from headwise.applied.merge import merge
from headwise.edits.artefact import write_into
from headwise.edits.card import CARD_FILE
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.shipping.convert import write_open_clip
from headwise.shipping.edited import folded_copy, folds, plain_copy
from headwise.shipping.prune import program, pruned, pruned_module
from headwise.shipping.to_hf import check_parts, write_hf
from headwise.shipping.verify import on_drawings, verify
from headwise.staging import temporary
from headwise.towers import hf_load, library, load, open_clip_load, tower_of
from headwise.towers.base import Model
from headwise.towers.onnx_base import WEIGHTS
from headwise.towers.overrides import Overrides
from headwise.towers.stored import stored
from headwise.towers.tools import need

SAME = {"hf": "hf", "open_clip": "open_clip", "timm": "timm", "sentence-transformers": "sentence_transformers"}
TEMPLATE = Path(__file__).with_name("modeling.py.txt")
MODELING = "modeling_headwise.py"
LEAST = 0.9999  # cosine to the live model
Facts = tuple[dict[str, object], str]


def write_door(model: Model, mask: Mask, folder: Path, to: str, *, prune: bool = True) -> Facts:
    """Write a model with its edits for a library, and compare it.

    Arguments:
        model: unchanged.
        mask: that fits it.
        folder: exists and is empty.
        to: a key of `DOORS`.
        prune: `torch`: cut out the heads that the mask removes.

    Returns:
        What was checked, as plain values and as a sentence.

    Raises:
        HeadwiseError: the door is not open to this model or this mask; or what was written computes something else.
    """
    if to == "torch":
        facts = _program(model, mask, folder, prune)
    else:
        check_folds(model.tower, mask)
        facts = DOORS[to](model, mask, folder, to)
    write_into(mask, folder)
    (folder / CARD_FILE).unlink(missing_ok=True)  # of whoever wrote the folder; the export has its own
    return facts


def _folder(model: Model, mask: Mask, folder: Path, to: str) -> Facts:
    """A folder of a library: the model's own, or one that takes the same weights."""
    own = library(model)
    if own == SAME[to]:
        _merged(model, mask, folder)
    elif own == "hf" and to == "sentence-transformers":
        _sentence_transformers(model, mask, folder)
    elif own == "hf" and to == "open_clip":
        with temporary() as work:
            merge(model, mask, work / "hf", check_weights=False)
            again, processor, *_ = hf_load.load(str(work / "hf"), Overrides())
            write_open_clip(again, processor, folder)
    elif own == "open_clip" and to == "hf":
        check_parts(model.module, model.name)
        with temporary() as work:
            merge(model, mask, work / "own", check_weights=False)
            found = open_clip_load.load(need("open_clip", "open-clip"), f"local-dir:{work / 'own'}", "cpu", Overrides())
            write_hf(found, folder, model.name)
    else:
        raise HeadwiseError(
            f"{model.name} is a model of {own.replace('_', '-')}, which cannot be written for {to}. Its own library's "
            "folder, onnx, torch and safetensors-delta are open to it; transformers' CLIP also to open_clip and "
            "sentence-transformers, open_clip's CLIP to hf."
        )
    (folder / CARD_FILE).unlink(missing_ok=True)
    write_into(mask, folder)
    checks = verify(folder, model, mask)
    if own != SAME[to]:
        checks.append(on_drawings(load(str(folder)), model, mask))
    if failed := [check for check in checks if not check.passed]:
        raise HeadwiseError(
            f"What was written for {to} is not the live model: "
            + "; ".join(f"{check.name}: {check.said}" for check in failed)
            + ". It was not kept."
        )
    said = {check.name: check.said for check in checks if check.name not in ("files", "edits")}
    return {"checks": said}, "; ".join(said[name] for name in ("images", "texts", "drawings") if name in said) + "."


def _merged(model: Model, mask: Mask, folder: Path) -> None:
    """What `merge` writes, in this folder."""
    with temporary() as work:
        merge(model, mask, work / "merged", check_weights=False)
        for path in sorted((work / "merged").rglob("*")):
            if path.is_file():
                target = folder / path.relative_to(work / "merged")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


def _sentence_transformers(model: Model, mask: Mask, folder: Path) -> None:
    library = need("sentence_transformers", "sentence-transformers")
    with temporary() as work:
        merge(model, mask, work / "hf", check_weights=False)
        library.SentenceTransformer(str(work / "hf"), device="cpu", local_files_only=True).save(str(folder))


def _delta(model: Model, mask: Mask, folder: Path, to: str) -> Facts:
    """The tensors that the mask changes, and no others, in the precision that they are stored in."""
    from safetensors.torch import load_file, save_file

    layout = stored(model.source) if model.source else None
    whole: dict[str, torch.Tensor] = {}
    for change in changes(model.tower, mask, model.module):
        if change.name in whole:
            change.put_into(whole[change.name])
        else:
            whole[change.name] = change.whole
    names = {id(p): name for name, p in model.module.named_parameters(remove_duplicate=False)}
    dtypes = {} if layout is None else layout.dtypes
    tensors = {n: t.to(dtypes.get(n, t.dtype)).cpu().contiguous().clone() for n, t in whole.items()}
    save_file(tensors, folder / "delta.safetensors", {"format": "pt", "weights_hash": model.tower.weights_hash})
    copy = plain_copy(model.tower)
    delta = load_file(folder / "delta.safetensors")
    pairs = zip(model.tower.parts.parameters(), copy.parts.parameters(), strict=True)
    with torch.no_grad():
        for own, other in pairs:
            if (name := names.get(id(own))) in delta:
                other.copy_(delta[name])
    size = (folder / "delta.safetensors").stat().st_size / 1e6
    return _compared(model, mask, copy.encode, {"tensors": len(tensors), "megabytes": round(size, 3)})


def _program(model: Model, mask: Mask, folder: Path, prune: bool) -> Facts:
    """`image.pt2`, the image tower as a torch program: JSON and bare numbers, no pickle."""
    heads = ""
    if mask.is_identity or not folds(model.tower, mask):
        made = program(plain_copy(model.tower), None if mask.is_identity else mask)
    elif prune:
        cut = pruned(model.tower, mask)
        made, heads = program(cut.tower), cut.sentence
    else:
        made = program(folded_copy(model.tower, mask))
    made._example_inputs = None  # they would be stored as a pickle
    torch.export.save(made, folder / "image.pt2")
    return _compared(model, mask, torch.export.load(folder / "image.pt2").module(), {"heads": heads})


def _pruned(model: Model, mask: Mask, folder: Path, to: str) -> Facts:
    """A transformers folder of uneven heads, with a file of code that makes its attention smaller."""
    from safetensors.torch import load_file, save_file

    if library(model) != "hf":
        raise HeadwiseError(
            f"{model.name} is not of transformers, whose folders alone can bring the code for uneven heads. "
            "Use --to onnx or --to torch: both are pruned."
        )
    twin, cut = pruned_module(model.module, tower_of, mask)
    if not cut.gone:
        raise HeadwiseError(f"There is nothing to prune: {mask} removes no head that can be cut out. Use --to hf.")
    write_small_files(model, folder)
    kind = type(model.module).__name__
    heads = [len(row) for row in cut.kept[: len(cut.tower.grid.layers)]]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "architectures": ["PrunedModel"],
        "auto_map": {"AutoModel": f"{Path(MODELING).stem}.PrunedModel"},
        "headwise_heads": heads,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / MODELING).write_text(TEMPLATE.read_text(encoding="utf-8").replace("BASE_CLASS", kind), encoding="utf-8")
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in twin.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    spec = importlib.util.spec_from_file_location("headwise_written", folder / MODELING)
    assert spec is not None
    assert spec.loader is not None
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)  # our own text, as it was written just now
    kind_of_config: Any = type(model.module.config)
    again = written.PrunedModel(kind_of_config.from_pretrained(folder)).eval()
    again.load_state_dict(load_file(folder / "model.safetensors"))
    return _compared(model, mask, _own_encode(again), {"heads": cut.sentence})


def _own_encode(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """A transformers model's own image embedding, images (B, 3, R, R) → (B, E)."""

    def encode(images: torch.Tensor) -> torch.Tensor:
        if hasattr(module, "get_image_features"):
            found = module.get_image_features(pixel_values=images)
            return getattr(found, "pooler_output", found)
        found = module(pixel_values=images)
        return found.image_embeds if hasattr(found, "image_embeds") else found.pooler_output

    return encode


def write_small_files(model: Model, place: Path) -> None:
    """The files of the model's own library, all but the weights."""
    with temporary() as work:
        whole = work / "model"
        model.save(whole)
        for path in sorted(whole.rglob("*")):
            if path.is_file() and not path.name.endswith(WEIGHTS):
                target = place / path.relative_to(whole)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


def _compared(model: Model, mask: Mask, encode: Callable[[torch.Tensor], torch.Tensor], facts: dict) -> Facts:
    """Embeddings of probe images by what was written, beside the live model's.

    Raises:
        HeadwiseError: they differ.
    """
    batch = probe_batch(model.tower, None)  # (B, 3, R, R)
    with torch.no_grad():
        found = encode(batch)  # (B, E)
    wanted = masked_embeddings(model, mask, batch)
    cosine = float(torch.cosine_similarity(found.double(), wanted.double(), dim=-1).min())
    if not cosine >= LEAST:
        raise HeadwiseError(
            f"What was written differs from the live model: the least cosine of {len(batch)} probe images is "
            f"{cosine:.6f}, and {LEAST} is asked. It was not kept."
        )
    said: Sequence[object] = [value for key, value in facts.items() if key == "heads" and value]
    return (
        {**facts, "image_cosine": cosine, "images": len(batch)},
        " ".join([f"Least cosine to the live model: {cosine:.6f} of {len(batch)} probe images.", *map(str, said)]),
    )


DOORS: dict[str, Callable[[Model, Mask, Path, str], Facts]] = {
    **dict.fromkeys(SAME, _folder),
    "pruned": _pruned,
    "safetensors-delta": _delta,
}
