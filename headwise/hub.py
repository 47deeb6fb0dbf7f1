"""The model hub, without its long wait where there is no network.

In: a block of code that asks the hub. Out: the same, from the cache alone where the hub does not answer within
seconds. What is asked for is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 5.0  # seconds for the hub to answer anything at all


@contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """Inside, calls of the hub use its cache alone, and fail at once, where the hub does not answer.

    The hub's client retries a dead connection for half a minute before it says so.

    Yields:
        Whether the hub answers.
    """
    from huggingface_hub import constants

    former = constants.HF_HUB_OFFLINE
    answers = not former and _answers(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = former or not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = former


def _answers(endpoint: str) -> bool:
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=PATIENCE)  # any answer will do, an error page too
    except Exception:  # the client raises its transport's own kinds: no name, no route, refused, no certificate
        return False
    return True
