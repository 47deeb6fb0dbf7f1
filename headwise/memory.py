"""How this process gets its memory: freed blocks stay with it, and large ones lie on large pages.

To be told before torch is imported; it changes no number. In: nothing. Out: settings of glibc and of torch's allocator.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}  # torch asks Linux for pages of 2 MB under tensors of that size
M_TRIM_THRESHOLD = -1  # of malloc.h: so many bytes free at the end of memory go back to the system
M_MMAP_THRESHOLD = -3  # blocks of so many bytes are the system's from the start


def keep_memory() -> None:
    """Large blocks that are freed stay with this process, for the next ones of the same size.

    glibc gives them back to the system and gets them anew, page by page, until it has seen blocks of that size freed: a
    tenth to a fifth of the time of a process that does nothing but run a small tower (docs/performance.md, docs/scale.md).
    Elsewhere than on Linux nothing is done.
    """
    for name, value in HUGE_PAGES.items():
        os.environ.setdefault(name, value)
    with suppress(OSError, AttributeError, TypeError):  # another C library, another system
        mallopt = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(option, 1 << 30)
