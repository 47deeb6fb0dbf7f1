"""The model hub, without its long wait where there is no network.

In: a block of code that asks the hub. Out: the same, from the cache alone where the hub does not answer within
seconds. What is asked for is not known.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 3.0  # seconds for the hub to answer anything at all


@contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """Inside, calls of the hub and of `datasets` use their caches alone, and fail at once, where the hub does not
    answer.

    The hub's client retries a dead connection for half a minute before it says so.

    Yields:
        Whether the hub answers.
    """
    from huggingface_hub import constants

    places: list[Any] = [
        constants,
        *filter(None, [sys.modules.get("datasets.config")]),
    ]  # the latter made a copy of its own
    formers = [place.HF_HUB_OFFLINE for place in places]
    answers = not constants.HF_HUB_OFFLINE and reachable()
    for place, former in zip(places, formers, strict=True):
        place.HF_HUB_OFFLINE = former or not answers
    try:
        yield answers
    finally:
        for place, former in zip(places, formers, strict=True):
            place.HF_HUB_OFFLINE = former


def reachable() -> bool:
    """Whether the hub answers within seconds.

    It is asked in a thread of its own: looking up a name where nobody answers knows no limit of time.
    """
    from huggingface_hub import constants, get_session

    found: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)  # any answer will do, an error page too
            found.append(True)
        except Exception:  # the client raises its transport's own kinds: no name, no route, refused, no certificate
            found.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(found) and found[0]
