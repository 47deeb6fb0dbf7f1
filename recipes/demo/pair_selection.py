"""Which pictures of a target style are packaged, with which captions, in which split. Pure functions."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hashing import unit_hash
from names import unique

PICK_SHARE = 0.3  # of the concepts of the select split; the rest is searched on
MAX_KEYWORD_CAPTIONS = 3  # names and aliases stay the larger part of the captions
KEYWORD_CAPTION = re.compile(r"[a-z][a-z' -]{2,}")  # no country codes, numbers or emoticons
# Emoji of faces, people and signs are tagged with moods and slang ("dope" for the OK hand), things with words for them.
NO_KEYWORD_CAPTIONS = {"smileys-emotion", "people-body", "symbols"}
JUNK_CAPTION = re.compile(r"HASH\(0x")  # left by a program in a few Open Clip Art descriptions
NUMBERED_ALIAS = re.compile(r"[A-Za-z)] ?\d+$")  # "umbrella2": a short code, nothing that one would say


@dataclass(frozen=True)
class Rule:
    """Drop the pictures whose `field` matches `pattern`."""

    field: str
    pattern: str
    reason: str

    def matches(self, picture: dict) -> bool:
        value = picture["captions"][0] if self.field == "caption" else picture[self.field]
        return re.search(self.pattern, value) is not None


def clean_captions(texts: Iterable[str]) -> list[str]:
    """Captions without surplus white space, empty or junk ones and case-insensitive repeats (the first stays)."""
    return [caption for caption in unique(texts) if not JUNK_CAPTION.search(caption)]


def drop_by_rules(pictures: Sequence[dict], rules: Sequence[Rule]) -> tuple[list[dict], Counter[str]]:
    """Apply the rules in order.

    Returns:
        The pictures that no rule matches, and how many pictures each rule's reason removed.
    """
    kept, dropped = [], Counter()
    for picture in pictures:
        reason = next((rule.reason for rule in rules if rule.matches(picture)), None)
        if reason is None:
            kept.append(picture)
        else:
            dropped[reason] += 1
    return kept, dropped


def one_per_concept(pictures: Sequence[dict], limit: int) -> list[dict]:
    """One picture per concept, and of the concepts a fixed sample when there are more than `limit`.

    Retrieval counts one picture as right for a caption; two hearts would make "heart" a coin toss.
    A picture named as the concept goes first (OpenMoji's "android" is filed under mobile phone); else, and for
    the sample, a hash decides: the same on every run.
    """

    def rank(picture: dict) -> tuple[bool, float]:
        return picture["name"] != picture["concept"], unit_hash(f"{picture['set']}/{picture['name']}", "picture")

    chosen: dict[str, dict] = {}
    for picture in sorted(pictures, key=rank):
        chosen.setdefault(picture["concept"], picture)
    concepts = sorted(chosen, key=lambda concept: unit_hash(concept, "sample"))[:limit]
    return sorted((chosen[concept] for concept in concepts), key=lambda p: p["idx"])


def unambiguous_captions(pictures: Sequence[dict]) -> list[list[str]]:
    """The captions to package for each picture, so that each caption has one right picture.

    A picture's name always stays. An alias stays if it is no short code with a number and belongs to no other
    picture. Keywords ("food", "face") mostly fit many pictures and would be unanswerable as queries; of things
    the first three that belong to one picture alone ("piano" for the musical keyboard) become captions.

    Arguments:
        pictures: metadata with `captions` (name first, then aliases) and `keywords`; one per concept.

    Returns:
        For each picture its captions, cleaned, in the order name, aliases, keywords. Empty if two pictures
        have the same name and nothing else sets this one apart.
    """
    names = Counter(picture["captions"][0].lower() for picture in pictures)
    owners: dict[str, set[int]] = defaultdict(set)
    for row, picture in enumerate(pictures):
        for text in clean_captions([*picture["captions"], *picture["keywords"]]):
            owners[text.lower()].add(row)

    def is_own(text: str) -> bool:
        return len(owners[text.lower()]) == 1

    result = []
    for picture in pictures:
        name, *aliases = clean_captions(picture["captions"])
        captions = [name] if names[name.lower()] == 1 else []
        captions += [alias for alias in aliases if is_own(alias) and not NUMBERED_ALIAS.search(alias)]
        keywords = [] if picture["category"] in NO_KEYWORD_CAPTIONS else clean_captions(picture["keywords"])
        keywords = [k for k in keywords if is_own(k) and KEYWORD_CAPTION.fullmatch(k)]
        result.append(clean_captions([*captions, *keywords[:MAX_KEYWORD_CAPTIONS]]))
    return result


def split_of(concept: str, is_test: bool) -> str:
    """`test` for the target's test split; of the rest 70 % of the concepts are `search`, 30 % are `pick`."""
    if is_test:
        return "test"
    return "pick" if unit_hash(concept, "pick") < PICK_SHARE else "search"
