"""What a hypernetwork learned from: its phrases (or descriptions), for showing the nearest ones.

Knows texts and vectors; knows no network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from detour.hypernetwork.config import EncoderName
from detour.hypernetwork.tasks import Description, Task
from detour.model.embedder import Embedder

MOST = 8192  # texts that are kept
NEARBY = 8  # nearest texts of a name, the shortest of which is proposed
VOTERS = 12  # nearest texts that speak for or against a name
USUAL = 3  # descriptions in which a word stands outside of the phrases, to be a usual one
WORD = re.compile(r"\w+(?:'\w+)?")
AND = " + "  # between the names of a text that has several


@dataclass(frozen=True)
class Near:
    """A known text, the primitive it names, and its cosine to what was asked for."""

    text: str
    primitive: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Known:
    """Texts with their vectors (of length 1) and what each names."""

    texts: tuple[str, ...]
    primitives: tuple[str, ...]
    vectors: Float[Tensor, "texts width"]
    usual: frozenset[str] = frozenset()
    """Words that stand around the phrases of training, in small letters: they ask for nothing."""

    @staticmethod
    def of(embedder: Embedder, tasks: Sequence[Task], kind: EncoderName) -> Known:
        """The phrases of the tasks that train, or whole descriptions where none are marked."""
        found: dict[str, tuple[str, str]] = {}
        around: Counter[str] = Counter()
        for task in tasks:
            for description in task.of_set():
                if kind == "spans" and description.parts:
                    around.update(set(_around(description)))
                for text, primitive in _told(task, description, kind):
                    found.setdefault(text.casefold(), (text, primitive))
        step = -(-len(found) // MOST)
        kept = list(found.values())[::step]
        return Known(
            tuple(text for text, _ in kept),
            tuple(primitive for _, primitive in kept),
            embedder.vectors([text for text, _ in kept]).half(),
            frozenset(word for word, count in around.items() if count >= USUAL),
        )

    def nearest(self, vectors: Float[Tensor, "parts width"], count: int = 3) -> list[Near]:
        """The nearest known texts, the best first; every primitive once."""
        if not len(vectors) or not self.texts:
            return []
        cosines = torch.nn.functional.normalize(vectors.float(), dim=-1) @ self.vectors.float().mT
        best, _ = cosines.max(0)
        found: dict[str, Near] = {}
        for place in best.argsort(descending=True).tolist():
            name = self.primitives[place]
            if name not in found:
                found[name] = Near(self.texts[place], name, round(float(best[place]), 4))
            if len(found) == count:
                break
        return list(found.values())

    def plainest(self, vector: Float[Tensor, " width"], primitive: str) -> str:
        """The shortest of the texts nearest to a vector that name just that; "" if none does."""
        own = [place for place, name in enumerate(self.primitives) if name == primitive]
        if not own:
            return ""
        cosines = self.vectors[own].float() @ torch.nn.functional.normalize(vector, dim=0)
        nearest = cosines.topk(min(NEARBY, len(own))).indices.tolist()
        return min((self.texts[own[place]] for place in nearest), key=len)

    def support(self, vector: Float[Tensor, " width"], names: Sequence[str]) -> tuple[float, float]:
        """How much the nearest known texts speak for these names.

        Returns the share of the nearest texts that name just them, weighed by how much nearer they
        are than the last one (0 … 1), and how much nearer the best of them is than the best of all
        others (cosine, -2 … 2; 0 where nothing else, or nothing of them, is known).
        """
        cosines = self.vectors.float() @ torch.nn.functional.normalize(vector, dim=0)
        own = torch.tensor([set(p.split(AND)) == set(names) for p in self.primitives])
        best, places = cosines.topk(min(VOTERS, len(cosines)))
        weights = (best - best[-1]).clamp(min=0) + 1e-3
        votes = float((weights * own[places]).sum() / weights.sum())
        if own.all() or not own.any():
            return votes, 0.0
        return votes, float(cosines[own].max() - cosines[~own].max())

    def is_usual(self, text: str) -> bool:
        """Whether all of its words stand around the phrases of training too."""
        return self.usual.issuperset(WORD.findall(text.casefold()))

    def best(self, vectors: Float[Tensor, "texts width"]) -> list[tuple[float, str]]:
        """The cosine of each to the nearest of all, and what that one names."""
        unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
        found, places = (unit @ self.vectors.float().mT).max(-1)
        return [
            (float(cosine), self.primitives[place])
            for cosine, place in zip(found, places.tolist(), strict=True)
        ]

    def similarity(self, vector: Float[Tensor, " width"]) -> float:
        """The cosine to the nearest of all."""
        return float((self.vectors.float() @ torch.nn.functional.normalize(vector, dim=0)).max())


def _around(description: Description) -> Iterator[str]:
    """The words outside of the phrases, in small letters."""
    at = 0
    for start, end in (*sorted(description.spans()), (len(description.text), 0)):
        yield from WORD.findall(description.text[at:start].casefold())
        at = end


def _told(task: Task, description: Description, kind: EncoderName) -> list[tuple[str, str]]:
    if kind == "spans" and description.parts:
        return [(phrase, primitive) for primitive, phrase in description.parts.items()]
    return [(description.text, AND.join(task.primitives))]
