"""What the words of a split column mean: search, pick or test.

In: a word as people write it (`train2014`, `Hold-Out`, `minival`). Out: one of the three, or None. What is done about
a split that is missing is in `splits.py`.
"""

from __future__ import annotations

import re

MEANING = {
    **dict.fromkeys(("search", "train", "training", "trn", "tr", "restval", "fit"), "search"),
    **dict.fromkeys(("pick", "val", "valid", "validation", "dev", "devel", "development", "minival", "tune"), "pick"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "heldout", "unseen"), "test"),
}  # fmt: skip
CODES = {"0": "search", "1": "pick", "2": "test"}  # Waterbirds, CelebA and their kin
ENDING = re.compile(r"(?:(?<=[a-z])(?:set|split|data|images|part))?(?:19|20)?\d{0,2}k?")  # train2014, test_split, val5k


def meaning(name: str) -> str | None:
    """`search`, `pick` or `test`; None for a word that is not known. Case, marks and years do not count
    (`Hold-Out`, `val2017`, `test_split`)."""
    word = re.sub(r"[\W_]+", "", name.lower())
    if word in CODES:
        return CODES[word]
    known = (MEANING[known] for known in MEANING if word.startswith(known) and ENDING.fullmatch(word, len(known)))
    return next(known, None)
