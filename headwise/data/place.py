"""A source as the user named it: what every reader gets."""

from __future__ import annotations

from dataclasses import dataclass

from headwise.data.columns import Wanted


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
    """

    name: str
    location: str
    wanted: Wanted
    images: str | None = None
    split: tuple[str, ...] = ()
    config: str | None = None

    def keep(self, split: str | None) -> bool:
        return not self.split or split in self.split
