"""A source as the user named it: what every reader gets.

In: the name with its options, taken apart by `sources.py`. Out: `Place`: where it is, which columns, which images,
which splits. Nothing is opened here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from headwise.data.columns import Wanted
from headwise.data.files import is_remote, parent


@dataclass(frozen=True)
class Place:
    """A source as the user named it.

    Arguments:
        name: as typed.
        location: file, folder, glob or hub id.
        wanted: columns.
        images: folder of the images, where the source names them only.
        split: the parts to keep, by the source's own names; empty: all.
        config: configuration of a hub data set.
        remote: its images may be fetched from elsewhere.
    """

    name: str
    location: str
    wanted: Wanted
    images: str | None = None
    split: tuple[str, ...] = ()
    config: str | None = None
    remote: bool = False

    def keep(self, split: str | None) -> bool:
        """Whether rows of this split are wanted."""
        return not self.split or split in self.split

    @property
    def own_folder(self) -> str:
        """The folder that the source is, or lies in."""
        return self.location if not is_remote(self.location) and os.path.isdir(self.location) else parent(self.location)

    @property
    def folder(self) -> str:
        """Where the names of its images start: the folder that was given for them, or its own."""
        return self.own_folder if self.images is None else self.images
