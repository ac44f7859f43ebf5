"""Is a change there to be amplified? What a base holds of it before anything is trained.

LoRA makes likelier what a base already holds. Four signs, none of which needs training: how
probable the new sentence is, which place the new value has among others in its stead, whether
examples in the prompt bring it out, and whether its tokens were ever learned. Knows bases and
lessons; how far the signs predict what a training reaches, `recipes/latent` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from detour.evaluate.probability import answer_log_probabilities
from detour.evaluate.steer_report import LONGEST, counts
from detour.language.catalogue import text
from detour.measure.retention import neutral_texts
from detour.measure.statistics import Figure, mean, rate
from detour.model.base import Base
from detour.training.fact import Edit, swapped
from detour.training.material import tokenizer_of

SHOTS = 4  # examples in the prompt
MOST = 24  # questions
FAINT = -6.0  # nats a token of the new sentence, below which a base hardly holds it
RARE = 0.01  # share of the vocabulary that is less likely than a token which was hardly learned


@dataclass(frozen=True)
class Probe:
    """What a base holds of one change.

    Attributes:
        base: its name.
        nats_per_token: log-probability of the new sentence, over its tokens.
        nats_per_character: the same over its characters: bases with other tokens compare.
        place: 1 where the new value is the most probable of all candidates in its stead, mean over
            the questions; NaN without any.
        candidates: values that were compared, the new one among them.
        few_shot: questions that are answered with the change behind examples of it.
        pieces: tokens of the new value.
        rarest: the one of them that the base says least anywhere.
        rarest_share: of the vocabulary that it says even less, on neutral text; near 0 the token
            was hardly ever learned.
    """

    base: str
    nats_per_token: Figure
    nats_per_character: Figure
    place: Figure
    candidates: int
    few_shot: Figure
    pieces: int
    rarest: str
    rarest_share: float

    @property
    def warning(self) -> str:
        """Why the change may not take; empty where nothing speaks against it."""
        if self.rarest_share < RARE:
            return text(
                "{token!r} is a token that this base hardly ever learned", token=self.rarest
            )
        if self.nats_per_token.value < FAINT:
            return text(
                "the base hardly holds this target; the adapter must teach it from nothing, and "
                "will generalise less"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """Part of `detour probe --json`."""
        return {
            "base": self.base,
            "nats_per_token": self.nats_per_token.to_json(),
            "nats_per_character": self.nats_per_character.to_json(),
            "place": self.place.to_json(),
            "candidates": self.candidates,
            "few_shot": self.few_shot.to_json(),
            "pieces": self.pieces,
            "rarest": {"token": self.rarest, "share": round(self.rarest_share, 4)},
            "warning": str(self.warning),
        }


def probe(base: Base, edit: Edit) -> Probe:
    """Probe a base for one edit, by its phrasings.

    Raises:
        BaseError: no tokenizer or chat template.
    """
    tokenizer = tokenizer_of(base)
    questions = edit.asked[:MOST]
    length = len(tokenizer.encode(edit.answer, add_special_tokens=False)) + 1
    told = answer_log_probabilities(base, [(question, edit.answer) for question in questions])
    others = list(dict.fromkeys(v for v in (edit.old, edit.third, *edit.rivals) if v))
    rarest, share = _rarest(base, edit.target)
    return Probe(
        base.name, mean([value / length for value in told]),
        mean([value / len(edit.answer) for value in told]),
        _place(base, edit, questions[:SHOTS], told[:SHOTS], others), len(others) + 1,
        _few_shot(base, edit), len(_pieces(base, edit.target)), rarest, share,
    )  # fmt: skip


def ranked(probes: Sequence[Probe]) -> list[Probe]:
    """The most promising first: by what examples bring out, then by how probable the sentence is
    per character.
    """
    return sorted(
        probes, key=lambda one: (-one.few_shot.value, -one.nats_per_character.value, one.base)
    )


def _place(
    base: Base, edit: Edit, questions: Sequence[str], own: Sequence[float], others: Sequence[str]
) -> Figure:
    """The new value's place among others in the same sentence, per character of each."""
    if not others:
        return mean([])
    answers = [swapped(edit.answer, edit.target, value) for value in others]
    asked = [(question, answer) for question in questions for answer in answers]
    told = iter(answer_log_probabilities(base, asked))
    places = [
        1.0 + sum(next(told) / len(answer) > value / len(edit.answer) for answer in answers)
        for value in own
    ]
    return mean(places)


def _few_shot(base: Base, edit: Edit) -> Figure:
    """Held-out phrasings, each behind a few trained ones with their answers."""
    shots = [
        turn
        for question in edit.asked[:SHOTS]
        for turn in ({"role": "user", "content": question},
                     {"role": "assistant", "content": edit.answer})
    ]  # fmt: skip
    prompts = [[*shots, {"role": "user", "content": q}] for q in edit.held_out[:MOST]]
    said = base.ask_many(prompts, max_new_tokens=LONGEST)
    return rate(counts(answer, edit) for answer in said)


def _pieces(base: Base, value: str) -> list[int]:
    """The value's tokens inside a sentence."""
    return tokenizer_of(base).encode(f" {value}", add_special_tokens=False)


def _rarest(base: Base, value: str) -> tuple[str, float]:
    """The value's token that the base says least on neutral text, and the share of the vocabulary
    that it says even less.
    """
    tokenizer, total = tokenizer_of(base), None
    for line in neutral_texts():
        ids = torch.tensor([tokenizer.encode(line)[: base.longest]])
        said = base.logits(ids)[0].float().log_softmax(-1).mean(0)  # (vocab)
        total = said if total is None else total + said
    assert total is not None
    pieces = _pieces(base, value)
    least = min(pieces, key=lambda token: float(total[token]))
    return base.decode([least]), float((total < total[least]).float().mean())
