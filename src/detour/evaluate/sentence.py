"""The demo's adapter from one sentence: what it was taken to mean, what it does, what it refuses.

Knows the packaged hypernetwork, the starter's world and its styles' markers; trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detour.adapter.adapter import Adapter
from detour.errors import NotUnderstood
from detour.evaluate.stacking import answers_to, held_out_questions, marker_rates
from detour.hypernetwork.generate import default_for
from detour.hypernetwork.saved import load_generator
from detour.language.catalogue import Catalogue
from detour.measure.statistics import Figure
from detour.model.base import Base
from detour.training.world import World

SENTENCES = {"en": "Talk like an excited reporter at the stadium.",
             "de": "Antworte wie ein Sportkommentator."}  # fmt: skip
ELSEWHERE = {
    "en": "Book a table for two at seven.",
    "de": "Bestell einen Tisch für zwei um sieben.",
}
STYLE = "sportscaster"
ASKED = 60


@dataclass(frozen=True, eq=False)
class FromSentence:
    """A generated adapter, and how it fares.

    Attributes:
        milliseconds: from the sentence to the adapter, the text encoder being loaded.
        marker: share of answers to held-out phrasings that bear the style's marker.
        without: the same of the base alone.
        elsewhere: a sentence that asks for nothing known, and `refusal`, what is said to it.
    """

    adapter: Adapter
    sentence: str
    understood: tuple[str, ...]
    confidence: float
    milliseconds: float
    question: str
    base_answer: str
    answer: str
    marker: Figure
    without: Figure
    elsewhere: str
    refusal: str

    def to_json(self) -> dict[str, Any]:
        """A part of `detour demo --json`."""
        return {
            "sentence": self.sentence,
            "understood": list(self.understood),
            "confidence": self.confidence,
            "milliseconds": round(self.milliseconds, 1),
            "question": self.question,
            "base_answer": self.base_answer,
            "answer": self.answer,
            "marker": self.marker.to_json(),
            "without": self.without.to_json(),
            "elsewhere": self.elsewhere,
            "refusal": self.refusal,
        }


def from_sentence(base: Base, world: World, question: str, seed: int = 0) -> FromSentence:
    """Generate the demo's adapter and measure it.

    Raises:
        HypernetworkError: the packaged hypernetwork is of another release than the base.
    """
    generator = load_generator(default_for(base.name))
    generator.check_base(base.fingerprint)
    sentence, elsewhere = SENTENCES[world.language], ELSEWHERE[world.language]
    (result,) = generator.generate([sentence])
    asked = held_out_questions(world, ASKED, seed)
    rates = [
        marker_rates(world, asked, answers_to(base, chain, asked), [STYLE])[STYLE]
        for chain in (result.adapter, None)
    ]
    try:
        generator.generate([elsewhere], strict=True)
        refusal = ""
    except NotUnderstood as told:
        refusal = Catalogue.load(world.language).say(told.line)
    return FromSentence(
        result.adapter, sentence, result.understood.primitives, result.understood.confidence,
        result.seconds * 1000, question, base.ask(question), base.ask(question, result.adapter),
        rates[0], rates[1], elsewhere, refusal,
    )  # fmt: skip
