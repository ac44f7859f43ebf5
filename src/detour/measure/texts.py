"""How near a text comes to a reference: exact match, ROUGE, BLEU, chrF.

ROUGE is counted on words as Unicode has them, umlauts and all, in any script with spaces; BLEU and
chrF are sacrebleu's. Intervals are percentile bootstraps over rows. Knows texts only.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from detour.extras import require
from detour.measure.metrics import mentions, normalised
from detour.measure.statistics import Figure, rate, resampled

ROW_DRAWS, CORPUS_DRAWS = 1000, 200  # of the bootstrap; a corpus is scored anew each time


def words(text: str) -> list[str]:
    """Words in small letters: runs of letters, digits and the marks on them, NFC.

    Vowel signs of Indian scripts are such marks; the `re` module would cut words at them.
    """
    kept = ""
    for sign in unicodedata.normalize("NFC", text).casefold():
        marks = unicodedata.category(sign).startswith("M") and not kept.endswith(" ")
        kept += sign if sign.isalnum() or (marks and kept) else " "
    return kept.split()


def rouge_n(reference: str, found: str, n: int) -> float:
    """F1 of shared n-grams, each as often as both have it (Lin 2004). 0 where one side has none."""
    one, other = _grams(words(reference), n), _grams(words(found), n)
    return _f1(sum((one & other).values()), sum(one.values()), sum(other.values()))


def rouge_l(reference: str, found: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, sentence level)."""
    one, other = words(reference), words(found)
    return _f1(_common(one, other), len(one), len(other))


def text_figures(
    references: Sequence[str], found: Sequence[str], corpus: bool | None = None, seed: int = 0
) -> dict[str, Figure]:
    """All metrics of a set of answers.

    `exact_match` (case and space aside) and `contains` are shares with Wilson's interval;
    `rouge1`, `rouge2` and `rougeL` means over rows; `bleu` and `chrf` (0 … 100) of the whole set.

    Args:
        references: what should be said.
        found: what was said, in the same order.
        corpus: whether BLEU and chrF are wanted; by default where sacrebleu is installed.
        seed: of the bootstrap.

    Raises:
        ValueError: different lengths, or no row.
        MissingExtra: `corpus` without sacrebleu.
    """
    if len(references) != len(found) or not references:
        raise ValueError("as many found as references, and at least one")
    pairs = list(zip(references, found, strict=True))

    def over_rows(values: Iterable[float]) -> Figure:
        return resampled(list(values), fmean, ROW_DRAWS, seed)

    figures = {
        "exact_match": rate(normalised(wanted) == normalised(said) for wanted, said in pairs),
        "contains": rate(mentions(said, wanted) for wanted, said in pairs),
        "rouge1": over_rows(rouge_n(wanted, said, 1) for wanted, said in pairs),
        "rouge2": over_rows(rouge_n(wanted, said, 2) for wanted, said in pairs),
        "rougeL": over_rows(rouge_l(wanted, said) for wanted, said in pairs),
    }
    if corpus or (corpus is None and _has_sacrebleu()):
        for name, score in _corpus_metrics().items():
            figures[name] = _of_corpus(score, pairs, seed)
    return figures


def _corpus_metrics() -> Mapping[str, Callable[[list[str], list[str]], float]]:
    metrics: Any = require("sacrebleu.metrics", "evaluate")
    bleu, chrf = metrics.BLEU(), metrics.CHRF()
    return {
        "bleu": lambda found, wanted: float(bleu.corpus_score(found, [wanted]).score),
        "chrf": lambda found, wanted: float(chrf.corpus_score(found, [wanted]).score),
    }


def _has_sacrebleu() -> bool:
    from importlib.util import find_spec

    return find_spec("sacrebleu") is not None


def _of_corpus(
    score: Callable[[list[str], list[str]], float], pairs: Sequence[tuple[str, str]], seed: int
) -> Figure:
    def value(rows: Sequence[tuple[str, str]]) -> float:
        return score([said for _, said in rows], [wanted for wanted, _ in rows])

    return resampled(pairs, value, CORPUS_DRAWS, seed)


def _grams(told: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(told[start : start + n]) for start in range(len(told) - n + 1))


def _f1(shared: int, wanted: int, found: int) -> float:
    return 2 * shared / (wanted + found) if shared else 0.0


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the table at a time."""
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, own in enumerate(other):
            row.append(before[place] + 1 if word == own else max(before[place + 1], row[-1]))
        before = row
    return before[-1]
