"""Candidate texts: n-grams of the user's captions in any language, a shipped list in themes, a file of the user's own.

In: captions of the images for labelling. Out: `Candidates`, different texts with their themes, and which images have
which text. Nothing is embedded here.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from headwise.errors import HeadwiseError
from headwise.reading import check_regular

CAPTIONS = "captions"  # the theme of what comes from captions
LONGEST = 3  # words of an n-gram
LONGEST_UNSPACED = 4  # characters of an n-gram in a script that is written without spaces
LEAST_IMAGES = 3
MOST_SHARE = 0.5  # a word of more than half of all images tells them apart no better than its absence
MOST_NGRAMS = 3000
MARKS = "'’-"  # inside a word they are part of it
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


@dataclass(frozen=True)
class Candidates:
    """Texts that a head may be labelled with.

    Arguments:
        texts: all different.
        themes: of each text.
    """

    texts: tuple[str, ...]
    themes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def tokens(text: str) -> list[str]:
    """Words in lower case; characters one by one (with their marks) where a script has no spaces.

    A word is a run of letters, marks and digits, as Unicode's categories have them; apostrophes and hyphens inside it
    belong to it. Everything else, emoji among it, is a token of its own or, spaces and punctuation, none.
    """
    found: list[str] = []
    word = ""
    text = unicodedata.normalize("NFC", text).casefold()
    for i, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind[0] in "LN" and not unspaced(character):
            word += character
            continue
        if kind[0] == "M" or character == "\u200d":  # a mark belongs to what it stands on
            if word:
                word += character
            elif found and kind[0] == "M":
                found[-1] += character
            continue
        if word and character in MARKS and unicodedata.category(text[i + 1 : i + 2] or " ")[0] == "L":
            word += character
            continue
        if word:
            found.append(word)
            word = ""
        if unspaced(character) or kind in ("So", "Sc"):
            found.append(character)
    return [*found, word] if word else found


def unspaced(character: str) -> bool:
    """Whether a character belongs to a script that is written without spaces."""
    point = ord(character)
    return point >= 0x0E00 and any(low <= point <= high for low, high in UNSPACED)


def joined(words: Sequence[str]) -> str:
    """Tokens as people write them: spaces between words, none in scripts without them."""
    text = ""
    for word in words:
        gap = text and not (unspaced(word[0]) and unspaced(text[-1]))
        text += (" " if gap else "") + word
    return text


def ngrams(words: Sequence[str]) -> set[tuple[str, ...]]:
    """All n-grams of a caption; of unspaced characters they are longer, as their words are."""
    found = set()
    for start in range(len(words)):
        for length in range(1, LONGEST_UNSPACED + 1):
            gram = tuple(words[start : start + length])
            if len(gram) < length:
                break
            if length > LONGEST and not all(unspaced(word[0]) for word in gram):
                break
            found.add(gram)
    return found


def caption_ngrams(captions: Sequence[Sequence[str]], most: int = MOST_NGRAMS) -> list[str]:
    """The n-grams that several images' captions share, most frequent first.

    An n-gram that occurs in the same images as a longer one is left out: the longer one says more.

    Arguments:
        captions: of each image.
    """
    images: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for i, texts in enumerate(captions):
        for text in texts:
            for gram in ngrams(tokens(text)):
                images[gram].add(i)
    limit = max(LEAST_IMAGES, int(MOST_SHARE * len(captions)))
    kept = {gram: owners for gram, owners in images.items() if LEAST_IMAGES <= len(owners) <= limit}
    shadowed = set()
    for gram, owners in kept.items():
        for inner in (gram[1:], gram[:-1]):
            if inner in kept and len(kept[inner]) == len(owners):
                shadowed.add(inner)
    order = sorted(
        (gram for gram in kept if gram not in shadowed), key=lambda gram: (-len(kept[gram]), -len(gram), gram)
    )
    return list(dict.fromkeys(map(joined, order)))[:most]


def presence(texts: Sequence[str], captions: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether a caption of an image has a text in it, as a run of tokens: bool (texts, images)."""
    wanted: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        wanted[tuple(tokens(text))].append(number)
    wanted.pop((), None)
    lengths = Counter(map(len, wanted))
    found = np.zeros((len(texts), len(captions)), dtype=bool)
    for i, own in enumerate(captions):
        for caption in own:
            words = tokens(caption)
            for length in lengths:
                for start in range(len(words) - length + 1):
                    for number in wanted.get(tuple(words[start : start + length]), ()):
                        found[number, i] = True
    return found


@cache
def shipped() -> Candidates:
    """Headwise's own list: short phrases in themes, `data_files/themes.json`."""
    themes = json.loads(files("headwise").joinpath("data_files/themes.json").read_text(encoding="utf-8"))
    texts = [(text, theme) for theme, own in themes.items() for text in own]
    return Candidates(tuple(text for text, _ in texts), tuple(theme for _, theme in texts))


def read_texts(path: str | Path) -> list[str]:
    """A user's own candidates, one a line.

    Raises:
        HeadwiseError: the file cannot be read, or has fewer than two different texts.
    """
    lines = lines_of(path, "texts")
    texts = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if len(texts) < 2:
        what = "is empty" if not texts else f"has one text alone ({texts[0]!r})"
        raise HeadwiseError(
            f"The texts file {path} {what}. A label is a choice between texts: give two or more, one a line."
        )
    return texts


def lines_of(path: str | Path, what: str) -> list[str]:
    """The lines of a file of texts.

    Arguments:
        what: the file is called so in messages.

    Raises:
        HeadwiseError: it cannot be read.
    """
    try:
        check_regular(path)
        return Path(path).read_text(encoding="utf-8-sig").split("\n")  # other marks of Unicode may stand in a text
    except OSError as error:
        raise HeadwiseError(f"The {what} file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HeadwiseError(f"The {what} file {path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error


def candidates(captions: Sequence[Sequence[str]], own: Sequence[str] = ()) -> Candidates:
    """What heads may be labelled with: the user's own texts alone where they are given, else n-grams and the list.

    Arguments:
        captions: of the images for labelling.
        own: from `read_texts`.
    """
    if own:
        return Candidates(tuple(own), ("yours",) * len(own))
    grams = caption_ngrams(captions)
    themes = dict(zip(shipped().texts, shipped().themes, strict=True))
    both = {text: themes.get(text, CAPTIONS) for text in grams}
    both |= {text: theme for text, theme in themes.items() if text not in both}
    return Candidates(tuple(both), tuple(both.values()))
