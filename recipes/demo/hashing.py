"""A seedless, portable pseudo-random number per text: every split here is made with it."""

import hashlib


def unit_hash(text: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on nothing but its arguments.

    Arguments:
        text: what to hash, e.g. a concept.
        salt: names the decision, so that two decisions about one text are independent.

    Returns:
        The first 32 bits of the MD5 digest of salt + text, as a fraction of 2**32.
    """
    return int(hashlib.md5((salt + text).encode()).hexdigest()[:8], 16) / 2**32
