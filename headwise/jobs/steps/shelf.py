"""Embeddings of the masks that searches ran, beside their study: a continued run reads them and need not run them again.

In: a bench. Out: `Shelf`, which `search.anchors.Anchors` asks. One file for each set of masks that ran together, named by
what its content depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from headwise.checked import Damaged, dump_tensors, load_tensors
from headwise.edits.mask import Mask
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench

FOLDER = "search-embeddings"
MOST_BYTES = 1e9  # of a study's embeddings on disk; sets beyond that are run again


@dataclass
class Shelf:
    """
    Arguments:
        folder: where the files are.
        key: what embeddings depend on besides the masks.
        say: gets a sentence where a file is damaged.
    """

    folder: Path
    key: str
    say: Callable[[str], None]

    @classmethod
    def beside(cls, bench: Bench) -> Shelf | None:
        """The shelf of a bench's study; None without one."""
        if bench.study is None:
            return None
        return cls(bench.study.path.parent / FOLDER, bench.key, bench.reporter.say)

    def take(self, masks: Sequence[Mask]) -> list[torch.Tensor] | None:
        """What `put` was given for this set, in the order of the masks; None where it is not there."""
        path = self._path(masks)
        try:
            tensors, _ = load_tensors(path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            self.say(f"The embeddings in {path} are damaged ({error}); these masks are run again.")
            return None
        return list(tensors["embeddings"])

    def put(self, masks: Sequence[Mask], embeddings: Sequence[torch.Tensor]) -> None:
        """Keep embeddings, each (N, E) float16, while there is room.

        Raises:
            HeadwiseError: the folder cannot be written.
        """
        path, together = self._path(masks), torch.stack(list(embeddings))  # (masks, N, E)
        held = sum(file.stat().st_size for file in self.folder.glob("*.safetensors") if file != path)
        if held + together.numel() * together.element_size() <= MOST_BYTES:
            write_files(self.folder, {path.name: dump_tensors({"embeddings": together}, self._facts(masks))})

    def _facts(self, masks: Sequence[Mask]) -> dict[str, object]:
        return {"key": self.key, "masks": [mask.key for mask in masks]}

    def _path(self, masks: Sequence[Mask]) -> Path:
        digest = hashlib.sha256(json.dumps(self._facts(masks), sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.safetensors"
