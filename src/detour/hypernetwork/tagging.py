"""Phrases in sentences: a tagger is trained on marked ones, and finds them in new sentences.

Knows the text encoder's tokens and descriptions; knows no layers and no base.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from detour.hypernetwork.encoder import (
    BEGIN,
    INSIDE,
    OUTSIDE,
    Described,
    Tagger,
    side_by_side,
    tagged_vectors,
    tags_of,
)
from detour.hypernetwork.tasks import Description
from detour.model.embedder import Embedded, Embedder

_PUNCTUATION = " ,.;:!?-"
MIXED = 0.4  # share of the descriptions a tagger learns from that get a phrase of another one
FEW = 0.95  # of the tokens right, below which phrases will be missed
JOINT = 10  # letters at most of what may stand between two phrases


@dataclass(frozen=True)
class Phrase:
    """A phrase found in a description, and how sure the tagger is of it (0 … 1)."""

    text: str
    certainty: float


@torch.no_grad()
def phrases_in(tagger: Tagger, text: str, embedded: Embedded) -> list[Phrase]:
    """Runs of words that the tagger takes for a phrase; a word is in or out as a whole."""
    probabilities = tagger(side_by_side([tagged_vectors(embedded)]))[0].softmax(-1)  # (tokens, 3)
    runs: list[list[list[int]]] = []
    is_open = False
    for word in _words(text, embedded):
        outside = float(probabilities[word, OUTSIDE].mean())
        first = probabilities[word[0]]
        if outside > 0.5:
            is_open = False
        elif is_open and first[BEGIN] <= max(float(first[INSIDE]), 0.5):
            runs[-1].append(word)
        else:
            runs.append([word])
            is_open = True
    phrases: list[Phrase] = []
    for run in runs:
        tokens = [token for word in run for token in word]
        told = text[embedded.places[tokens[0]][0] : embedded.places[tokens[-1]][1]]
        told = stripped(told)
        if any(character.isalnum() for character in told):
            sure = 1 - probabilities[tokens, OUTSIDE]
            phrases.append(Phrase(told, float(sure.mean())))
    return phrases


def stripped(told: str) -> str:
    """Without the punctuation around it."""
    return told.strip(_PUNCTUATION)


def _words(text: str, embedded: Embedded) -> list[list[int]]:
    """Tokens word by word: those that follow without a gap, both of letters or digits, are one."""
    words: list[list[int]] = []
    last = -1
    for token, (start, end) in enumerate(embedded.places):
        if start == end:
            continue
        if words and start == last and text[start].isalnum() and text[start - 1].isalnum():
            words[-1].append(token)
        else:
            words.append([token])
        last = end
    return words


def mixed(descriptions: Sequence[Description], rng: random.Random) -> list[Description]:
    """The same descriptions, a share of them with a phrase of another one beside one of theirs.

    What stands between the two is a comma, nothing, or what stands between phrases elsewhere: so
    a tagger learns where a phrase ends and the next begins, also in sentences that name more than
    any description does.
    """
    joints = _joints(descriptions)
    phrases: dict[str, list[tuple[str, str]]] = {}
    for description in descriptions:
        phrases.setdefault(description.language, []).extend(description.parts.items())
    found: list[Description] = []
    for description in descriptions:
        primitive, phrase = rng.choice(phrases[description.language])
        places = description.spans()
        if rng.random() >= MIXED or primitive in description.parts or phrase in description.text:
            found.append(description)
            continue
        start, end = rng.choice(places)
        told, joint = description.text, rng.choice(joints[description.language])
        if rng.random() < 0.5:
            told = f"{told[:end]}{joint}{phrase}{told[end:]}"
        else:
            told = f"{told[:start]}{phrase}{joint}{told[start:]}"
        parts = {**description.parts, primitive: phrase}
        found.append(Description(text=told, parts=parts, language=description.language))
    return found


def _joints(descriptions: Sequence[Description]) -> Mapping[str, Sequence[str]]:
    """By language, what may stand between two phrases; commas and nothing are a half of it."""
    between: dict[str, Counter[str]] = {}
    for description in descriptions:
        counts = between.setdefault(description.language, Counter())
        places = sorted(description.spans())
        for (_, end), (start, _) in itertools.pairwise(places):
            if 0 < start - end <= JOINT:
                counts[description.text[end:start]] += 1
    found: dict[str, list[str]] = {}
    for language, counts in between.items():
        usual = [joint for joint, _ in counts.most_common(8)]
        found[language] = [*usual, *[", "] * 4, *[" "] * 4]
    return found


def train_tagger(
    embedder: Embedder,
    descriptions: Sequence[Description],
    *,
    count: int = 12000,
    epochs: int = 6,
    seed: int = 0,
    teller: Callable[[str], None] | None = None,
) -> Tagger:
    """A tagger that finds the marked phrases of descriptions like these."""
    rng = random.Random(seed)
    chosen = [d for d in descriptions if d.parts]
    chosen = mixed(rng.sample(chosen, min(count, len(chosen))), rng)
    read = embedder.embed([d.text for d in chosen])
    vectors = [tagged_vectors(e).half() for e in read]
    tags = [tags_of(e, d.spans()) for e, d in zip(read, chosen, strict=True)]
    torch.manual_seed(seed)
    tagger = Tagger(embedder.width)
    optimiser = torch.optim.AdamW(tagger.parameters(), 2e-3)
    steps = epochs * -(-len(chosen) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    share = 0.0
    for epoch in range(epochs):
        order = rng.sample(range(len(chosen)), len(chosen))
        right = total = 0
        for start in range(0, len(order), 64):
            places = order[start : start + 64]
            described = side_by_side([vectors[place].float() for place in places])
            noise = torch.randn_like(described.vectors) * 0.1
            logits = tagger(Described(described.vectors + noise, described.there))
            wanted = torch.full(described.there.shape, -100)
            for row, place in enumerate(places):
                wanted[row, : len(tags[place])] = torch.tensor(tags[place])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            kept = wanted != -100
            right += int((logits.argmax(-1)[kept] == wanted[kept]).sum())
            total += int(kept.sum())
        share = right / total
        if teller:
            teller(f"tagger: epoch {epoch + 1} of {epochs}, {share:.3f} of the tokens")
    if teller and share < FEW:
        teller("tagger: it misses many phrases; more descriptions help (detour hypernet widen)")
    return tagger.eval()
