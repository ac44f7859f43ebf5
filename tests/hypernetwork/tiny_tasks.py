"""A text encoder made of nothing, and tiny tasks."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from detour.model.embedder import Embedded, Embedder

WIDTH = 24
PHRASES = {
    "loud": ["in capitals", "in upper case", "shouting"],
    "soft": ["in small letters", "in lower case", "whispering"],
    "home": ["the city", "the town", "the place"],
    "work": ["the job", "the trade", "the craft"],
}
ANSWERS = {"loud": "YES", "soft": "yes", "home": "Ulm", "work": "cook"}
PAIRS = [("home", "loud"), ("home", "soft"), ("work", "loud"), ("work", "soft")]


class WordEmbedder(Embedder):
    """Every word has a vector by its hash; nothing depends on the sentence."""

    def __init__(self) -> None:
        self.name = "words"
        self.sha256 = "0" * 64
        self.width = WIDTH
        self.longest = 256

    def embed(self, texts: Sequence[str], batch_size: int = 64) -> list[Embedded]:
        return [self._embedded(text) for text in texts]

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self._embedded(text).places) for text in texts]

    def _embedded(self, text: str) -> Embedded:
        found = list(re.finditer(r"\w+", text)) or list(re.finditer(r".", text))
        states = torch.stack([_vector(match.group().lower()) for match in found])
        return Embedded(states, states, tuple(match.span() for match in found))


def _vector(word: str) -> torch.Tensor:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def write_task(folder: Path, name: str, told: dict[str, object], rows: int = 6) -> Path:
    """One task folder; its rows answer with what its primitives say."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "task.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    said = " ".join(ANSWERS[p] for p in name.split("-") if p in ANSWERS) or "yes"
    for part, first in (("train", 0), ("test", 100)):
        lines = "".join(
            f'{{"prompt": "Question {first + row}", "completion": "{said}"}}\n'
            for row in range(rows)
        )
        (place / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    return place


def described(names: Sequence[str], count: int, marked: bool, first: int = 0) -> list[object]:
    """Descriptions of a task made of these primitives."""
    found: list[object] = []
    for number in range(first, first + count):
        parts = {name: PHRASES[name][number % 3] for name in names}
        text = f"{['Say', 'Give', 'State'][number % 3]} {' and '.join(parts.values())} {number}."
        found.append({"text": text, "parts": parts} if marked else text)
    return found


def told_of(names: Sequence[str], split: str, marked: bool) -> dict[str, object]:
    descriptions = described(names, 9, marked)
    more = described(names, 3, True, first=20)
    judged = [{**d, "set": "new frames"} for d in more if isinstance(d, dict)]
    return {"primitives": list(names), "split": split, "descriptions": [*descriptions, *judged]}
