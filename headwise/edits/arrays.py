"""Numbers that an edit carries beside its one number: constants, shifts, principal axes. Immutable, equal by content."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from headwise.errors import HeadwiseError


@dataclass(frozen=True, repr=False)
class Array:
    """A float32 array that can be a part of something hashable.

    Arguments:
        shape: its sides.
        data: the numbers, little-endian float32, row by row.

    Raises:
        HeadwiseError: data of another size, or a number that is not finite.
    """

    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if len(self.data) != 4 * math.prod(self.shape):
            raise HeadwiseError(f"{len(self.data)} bytes are not {list(self.shape)} numbers of float32.")
        if not np.isfinite(self.numpy()).all():
            raise HeadwiseError("It holds a number that is not finite (NaN or infinity).")

    @classmethod
    def of(cls, values: Any) -> Array:
        """From a tensor on any device, an array or nested lists; rounded to float32."""
        if hasattr(values, "detach"):
            values = values.detach().float().cpu().numpy()
        array = np.asarray(values, dtype="<f4")
        return cls(array.shape, array.tobytes())

    def numpy(self) -> np.ndarray:
        """The numbers, read-only float32."""
        return np.frombuffer(self.data, "<f4").reshape(self.shape)

    @cached_property
    def digest(self) -> str:
        """A short text that is equal for equal arrays."""
        return hashlib.sha256(repr(self.shape).encode() + self.data).hexdigest()[:24]

    def __repr__(self) -> str:
        return f"Array({list(self.shape)}, {self.digest})"
