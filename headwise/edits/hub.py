"""Edits on the hub: what is put there, and the card that says how to apply them.

In: edits, the name of a repository. Out: where they are. Getting them is `artefact.read`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwise.edits.artefact import save
from headwise.edits.card import Described, card_header, is_hub_id, origin
from headwise.errors import HeadwiseError, cause
from headwise.plain import code, markdown, yaml
from headwise.staging import temporary

APPLYING = {  # how edits are applied to their base model, for each library that loads it
    "transformers": """import headwise
from transformers import AutoModel, AutoProcessor

model, processor = AutoModel.from_pretrained({base}), AutoProcessor.from_pretrained({base})
with headwise.apply(model, headwise.Mask.from_pretrained({edits})):
    features = model.get_image_features(**processor(images=images, return_tensors="pt"))
""",
    "sentence-transformers": """import headwise
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({base})
with headwise.apply(model, headwise.Mask.from_pretrained({edits})):
    embeddings = model.encode(images)
""",
    "open_clip": """import headwise
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms({architecture}, pretrained={tag})
with headwise.apply(model, headwise.Mask.from_pretrained({edits})):
    features = model.encode_image(pixels)
""",
    "headwise": """import headwise

model = headwise.load({base})
with headwise.apply(model, headwise.Mask.from_pretrained({edits})):
    features = model.tower.encode(pixels)
""",
}


def card(mask: Described, place: str, *, licence: str = "") -> str:
    """The README of edits alone: how to apply them in each library, where they come from, their limits.

    Arguments:
        mask: the edits.
        place: what `Mask.from_pretrained` takes: `org/name`, or a folder.
        licence: an identifier of the hub; empty: the base model's applies.
    """
    base = str(mask.provenance.get("base_model", "demo"))
    library, _, reference = base.partition(":")
    architecture, _, tag = reference.partition("/")
    names = {"hf": ("transformers", "sentence-transformers"), "open_clip": ("open_clip",)}.get(library, ("headwise",))
    values = {"edits": repr(place), "architecture": repr(architecture), "tag": repr(tag)}
    blocks = []
    for name in names:
        said = values | {"base": repr(base if name == "headwise" else reference)}
        blocks += [f"With {name}:", "", "```python", APPLYING[name].format(**said).rstrip(), "```", ""]
    lines = card_header(base).splitlines()
    named = ", ".join(f"{head}={edit}" for head, edit in mask.edits.items()) or "identity"
    header = "\n".join(["---", *([f"license: {yaml(licence)}"] if licence else []), *lines[1:]])
    return "\n".join(
        [
            header,
            "",
            f"# Head edits of {markdown(base)}",
            "",
            f"Edited heads ({len(mask.edits)} of {mask.grid.size}): {code(named)}. Layers and heads count from 0. No parameter "
            "was trained; the base model is not part of this repository.",
            "",
            *blocks,
            "For good, in any library or as ONNX: `headwise export`.",
            "",
            "## Facts",
            "",
            *origin(mask),
            "",
            "## Limits",
            "",
            "The heads were chosen for the data above, which is named by its hash. On other data the change may be nothing or "
            "a loss: measure it with `headwise evaluate`. "
            + (f"Licence: {markdown(licence)}." if licence else "The licence of the base model applies."),
            "",
        ]
    )


def push(mask: Described, repo_id: str, *, licence: str, text: str | None, **options: Any) -> str:
    """Put edits and a card on the hub: see `Mask.push_to_hub`."""
    with temporary() as work:
        said = card(mask, repo_id, licence=licence) if text is None else text
        save(mask, work / "edits", card=said)
        return upload(work / "edits", repo_id, **options)


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload by headwise",
) -> str:
    """Put a folder into a repository of the hub, made where it is missing, by the hub's own client.

    Arguments:
        folder: all of it is sent.
        repo_id: `org/name`.
        private: make the repository private where it is made.
        token: None: the one that the client finds (`hf auth login`, HF_TOKEN).
        revision: a branch, made where it is missing.
        commit_message: one line.

    Returns:
        The address of the commit.

    Raises:
        HeadwiseError: a name, right or network that the hub does not take.
    """
    from huggingface_hub import HfApi

    if not is_hub_id(repo_id):
        raise HeadwiseError(f"{str(repo_id)!r} is not the name of a repository of the hub. Write it as org/name.")
    try:
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        found = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message)
    except Exception as error:  # the hub's client raises many kinds: network, rights, names
        raise HeadwiseError(
            f"The hub did not take {repo_id}: {cause(error)}. Check the name, the token (hf auth login, or token=) and "
            "the network."
        ) from error
    return str(found.commit_url)
