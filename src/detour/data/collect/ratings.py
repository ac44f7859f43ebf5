"""What a rating says: good, bad, a number on a scale, or nothing.

Words, thumbs and truth values speak for themselves; from which number on an answer is good follows
from the scale, which the largest number tells. Knows values; knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from detour.data.numbers import number_of
from detour.errors import DataError
from detour.language.catalogue import Text, text

Mark: TypeAlias = "str | float | None"
"""`good`, `bad`, `unclear`, a number, or None where nobody rated."""
GOOD: Final = frozenset({
    "up", "thumbs_up", "thumbsup", "thumb_up", "upvote", "upvoted", "like", "liked", "love",
    "positive", "good", "great", "excellent", "helpful", "yes", "true", "correct", "right",
    "accept", "accepted", "approved", "ok", "okay", "daumen_hoch", "gut", "sehr_gut", "hilfreich",
    "ja", "richtig", "positiv", "👍", "❤", "⬆", "✅",
})  # fmt: skip
BAD: Final = frozenset({
    "down", "thumbs_down", "thumbsdown", "thumb_down", "downvote", "downvoted", "dislike",
    "disliked", "negative", "bad", "poor", "terrible", "unhelpful", "not_helpful", "no", "false",
    "incorrect", "wrong", "reject", "rejected", "daumen_runter", "schlecht", "nicht_hilfreich",
    "nein", "falsch", "negativ", "👎", "⬇", "❌",
})  # fmt: skip
NOTHING: Final = frozenset({"", "none", "null", "neutral", "skip", "n/a", "keine"})
RATINGS: Final = (  # columns under which a rating stands; the first that is there counts
    "feedback", "rating", "thumbs", "thumb", "vote", "reaction", "score", "liked", "is_good",
    "helpful", "is_helpful", "is_positive", "annotation", "bewertung", "label",
)  # fmt: skip
WITHIN: Final = (*RATINGS, "value", "type", "sentiment")
SCALES: Final = (1.0, 5.0, 10.0, 100.0)
SHARE: Final = 0.8  # of a scale, from which on an answer is good
_PLAIN = str.maketrans({" ": "_", "-": "_", "\ufe0f": None,
                        **{chr(tone): None for tone in range(0x1F3FB, 0x1F400)}})  # fmt: skip


def mark_of(value: object) -> Mark:
    """What a rating says, also inside an object or a list; of several the worst."""
    if value is None or isinstance(value, bool):
        return value if value is None else "good" if value else "bad"
    if isinstance(value, Mapping):
        told = cast("Mapping[str, Any]", value)
        return mark_of(next((told[name] for name in WITHIN if name in told), None))
    if isinstance(value, list):
        return _worst([mark_of(one) for one in cast("list[object]", value)])
    number = number_of(value)
    if number is not None:
        return number
    word = str(value).strip().strip(":").casefold().translate(_PLAIN)
    if word in NOTHING:
        return None
    return "good" if word in GOOD else "bad" if word in BAD else "unclear"


def _worst(marks: list[Mark]) -> Mark:
    for wanted in ("bad", "unclear"):
        if wanted in marks:
            return wanted
    numbers = [mark for mark in marks if isinstance(mark, float)]
    return min(numbers) if numbers else "good" if "good" in marks else None


@dataclass(frozen=True)
class Scale:
    """From which number on an answer is good."""

    good_from: float = 1.0
    zero_is_nothing: bool = False
    told: Text | None = None

    def judged(self, mark: Mark) -> Mark:
        """`good`, `bad`, `unclear` or None."""
        if not isinstance(mark, float):
            return mark
        if not mark and self.zero_is_nothing:
            return None
        return "good" if mark >= self.good_from else "bad"


class Range:
    """The numbers of a log, one after another."""

    def __init__(self) -> None:
        self.lowest, self.highest, self.is_whole = float("inf"), float("-inf"), True

    def add(self, mark: Mark) -> None:
        """One more rating."""
        if isinstance(mark, float):
            self.lowest, self.highest = min(self.lowest, mark), max(self.highest, mark)
            self.is_whole &= mark.is_integer()

    def scale(self, good_from: float | None = None) -> Scale:
        """The scale that they are on; 1 and -1 are thumbs, else good is four fifths of the top.

        Raises:
            DataError: no scale that is known, and nobody said from where on an answer is good.
        """
        if self.lowest > self.highest:
            return Scale() if good_from is None else Scale(good_from)
        lowest, highest = self.lowest, self.highest
        if good_from is None and self.is_whole and lowest >= -1 and highest <= 1:
            told = text("ratings from {lowest:g} to {highest:g}: good is 1",
                        lowest=lowest, highest=highest)  # fmt: skip
            return Scale(1.0, lowest < 0, told)
        top = next((top for top in SCALES if highest <= top), None)
        if good_from is None and (top is None or lowest < 0):
            raise DataError(
                text("the ratings lie between {lowest:g} and {highest:g}, which is no scale that "
                     "is known", lowest=lowest, highest=highest),
                expected=text("up and down, 1 and -1, or at most 1, 5, 10 or 100"),
                hint=text("say from which number on an answer is good: --good-from 7"),
            )  # fmt: skip
        least = good_from if good_from is not None else SHARE * (top or 0)
        told = text("ratings from {lowest:g} to {highest:g}: good is {least:g} or more",
                    lowest=lowest, highest=highest, least=least)  # fmt: skip
        return Scale(least, False, told)
