"""Exports on the hub: a folder that `export` or `merge` wrote, with its files compared before they are sent.

In: a folder, the name of a repository. Out: where it is. What is sent is JSON, Markdown, safetensors and ONNX: no code but
that of a `pruned` export, which says so itself. Edits alone go by `Mask.push_to_hub`.
"""

from __future__ import annotations

from pathlib import Path

from headwise.edits.card import CARD_FILE
from headwise.edits.hub import upload
from headwise.errors import HeadwiseError
from headwise.sums import SUMS_FILE, check_sums


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload by headwise",
) -> str:
    """Put a folder that `export` or `merge` wrote into a repository of the hub, made where it is missing.

    Arguments:
        folder: with its card and `SHA256SUMS`, or what `merge` wrote.
        others: as for `Mask.push_to_hub`.

    Returns:
        The address of the commit.

    Raises:
        HeadwiseError: a folder that is not there or whose files are not those that were written; a name, right or
            network that the hub does not take.
    """
    folder = Path(folder)
    if not (folder / CARD_FILE).is_file():
        raise HeadwiseError(f"{folder} holds no {CARD_FILE}. Give a folder that headwise export or merge wrote.")
    if (folder / SUMS_FILE).is_file():
        check_sums(folder)
    return upload(folder, repo_id, private=private, token=token, revision=revision, commit_message=commit_message)
