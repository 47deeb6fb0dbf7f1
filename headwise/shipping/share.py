"""Edits and exports on the hub, as peft does it: one call to put them there, `Mask.from_pretrained` to get them.

In: a mask or a folder, the name of a repository. Out: where it is. What is sent is JSON, Markdown, safetensors and ONNX: no
code but that of a `pruned` export, which says so itself.
"""

from __future__ import annotations

from pathlib import Path

from headwise.edits.artefact import CARD_FILE
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError, cause
from headwise.shipping.card import mask_card
from headwise.staging import temporary
from headwise.sums import SUMS_FILE, check_sums


def push_to_hub(
    what: Mask | str | Path,
    repository: str,
    *,
    licence: str = "",
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload by headwise",
    card: str | None = None,
) -> str:
    """Put edits, or a folder that `export` or `merge` wrote, into a repository of the hub, made where it is missing.

    The hub's own client finds the token (`hf auth login`, HF_TOKEN) and the endpoint (HF_ENDPOINT).

    Arguments:
        what: a mask, or a folder.
        repository: `org/name`.
        licence: of edits, for their card; empty: the base model's applies.
        private: make the repository private where it is made.
        revision: a branch.
        message: of the commit.
        card: the text of the card of edits; None writes one.

    Returns:
        The address of the commit.

    Raises:
        HeadwiseError: a folder that is not there or whose files are not those that were written; a name, right or
            network that the hub does not take.
    """
    from huggingface_hub import HfApi

    with temporary() as work:
        if isinstance(what, Mask):
            folder = work / "mask"
            what.save_pretrained(folder, card=mask_card(what, repository, licence=licence) if card is None else card)
        else:
            folder = Path(what)
            _check(folder)
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            found = api.upload_folder(repo_id=repository, folder_path=folder, revision=revision, commit_message=message)
        except Exception as error:  # the hub's client raises many kinds: network, rights, names
            raise HeadwiseError(
                f"The hub did not take {repository}: {cause(error)}. Check the name, the token (hf auth login) and the "
                "network."
            ) from error
    return str(found.commit_url)


def _check(folder: Path) -> None:
    if not (folder / CARD_FILE).is_file():
        raise HeadwiseError(f"{folder} holds no {CARD_FILE}. Give a folder that headwise export or merge wrote.")
    if (folder / SUMS_FILE).is_file():
        check_sums(folder)
