"""A trained hypernetwork at work: a sentence to an adapter, and how sure it is.

Knows the network, the text encoder and the base's fingerprint; knows no base model: what it makes
is an ordinary adapter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.update import Update
from detour.errors import HypernetworkError, NotUnderstood
from detour.hypernetwork.confidence import Confidence, Signals
from detour.hypernetwork.encoder import Described, Tagger, side_by_side
from detour.hypernetwork.known import Known, Near
from detour.hypernetwork.negation import negations
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.parting import mended
from detour.hypernetwork.reading import Reader, Reading
from detour.language.catalogue import Text, text
from detour.model.embedder import Embedder

SURE = 0.5  # confidence below which a user is warned
FAR = 0.1  # below which it hardly asks for anything that is known
STRAY_WORDS, STRAY = 2, 0.6  # so few words, so far from all that is known: no phrase of its own
HALF = 0.5  # of the confidence is left where something was left out, or is negated
COPIES = 16  # noisy copies of a part
NOISE = 0.5  # length of their noise, as a share of the vector's


@dataclass(frozen=True, eq=False)
class Understood:
    """What a description was taken to mean."""

    description: str
    primitives: tuple[str, ...]
    phrases: tuple[str, ...]
    ignored: tuple[str, ...]
    """Words that might name something, too far from all that is known."""
    signals: Signals
    confidence: float
    nearest: tuple[Near, ...]
    negated: tuple[str, ...] = ()
    """Phrases behind a "not": they are taken for what they would ask for without it."""
    plainly: tuple[str, ...] = ()
    """A short known wording for everything it was taken for."""
    calibrated: bool = True
    """Whether the confidence was fitted; otherwise it is how probable the names are."""


@dataclass(frozen=True, eq=False)
class Result:
    """A generated adapter."""

    adapter: Adapter
    understood: Understood
    seconds: float

    @property
    def warning(self) -> Text | str:
        """What to tell the user where the confidence is low; else nothing."""
        understood = self.understood
        if understood.negated:
            return text(
                "negations are not understood, these are done rather than left: {words}",
                words=", ".join(understood.negated),
            )
        if understood.primitives and understood.ignored:
            return text(
                "nothing known is near enough to these words, they are left out: {words}",
                words=", ".join(understood.ignored),
            )
        if understood.confidence < SURE:
            return doubt(understood)
        if not understood.calibrated:
            return text(
                "this hypernetwork could not learn when it errs: its confidence is only how "
                "probable the names are"
            )
        return ""


def doubt(understood: Understood) -> Text:
    """What was understood, and a sentence that would be clearer."""
    if not understood.primitives:
        return text("nothing in the description names anything this hypernetwork knows")
    if understood.confidence < FAR:
        return text(
            "this seems to ask for something that this hypernetwork does not know; nearest is "
            "{names}: {wording!r}",
            names=" + ".join(understood.primitives),
            wording=", ".join(understood.plainly),
        )
    return text(
        "not sure of the description; understood as {names}; a clearer wording: {wording!r}",
        names=" + ".join(understood.primitives),
        wording=", ".join(understood.plainly),
    )


class Generator:
    """A hypernetwork with everything that it needs beside the base.

    Attributes:
        network: in eval mode.
        base: which base it was trained for.
        name: as the card of its adapters names it.
        digest: sha256 of its weights.
    """

    def __init__(
        self,
        network: Hypernetwork,
        tagger: Tagger | None,
        known: Known,
        confidence: Confidence | None,
        base: Fingerprint,
        embedder_sha256: str,
        name: str = "hypernetwork",
        digest: str = "",
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.tagger = tagger
        self.known = known
        self.confidence = confidence
        self.base = base
        self.embedder_sha256 = embedder_sha256
        self.name = name
        self.digest = digest

    @cached_property
    def reader(self) -> Reader:
        """The text encoder, loaded when it is first needed.

        Raises:
            MissingExtra, BaseError: it is not there.
            HypernetworkError: it is another one than this hypernetwork was trained with.
        """
        embedder = Embedder.load(self.network.config.embedder)
        if embedder.sha256 != self.embedder_sha256:
            raise HypernetworkError(
                text("the text encoder is not the one this hypernetwork was trained with"),
                expected=f"{self.network.config.embedder} ({self.embedder_sha256[:8]})",
                found=embedder.sha256[:8],
            )
        config = self.network.config
        return Reader(embedder, config.encoder, self.tagger, config.spelling)

    def check_base(self, here: Fingerprint) -> None:
        """Nothing, if it was trained for this base.

        Raises:
            HypernetworkError: it was trained for another one.
        """
        if not self.base.same_weights(here):
            raise HypernetworkError(
                text("{name} was not trained for this base", name=self.name),
                expected=self.base.short,
                found=here.short,
                hint=text("train one: detour hypernet train TASKS --base BASE"),
            )

    @torch.no_grad()
    def understand(self, descriptions: Sequence[str]) -> list[Understood]:
        """What each description is taken to mean, without generating anything."""
        return [self._understood(reading) for reading in self._read(descriptions)]

    @torch.no_grad()
    def generate(
        self, descriptions: Sequence[str], strength: float = 1.0, *, strict: bool = False
    ) -> list[Result]:
        """An adapter a description, all in one pass.

        Args:
            descriptions: sentences.
            strength: what the updates' scale is multiplied by.
            strict: refuse a description of which the hypernetwork is not sure.

        Raises:
            HypernetworkError: a description that is empty or too long.
            NotUnderstood: with `strict`, too low a confidence; without it, a description in which
                nothing at all was found.
        """
        for description in descriptions:
            if not description.strip():
                raise HypernetworkError(
                    text("the description is empty"),
                    expected=text("a sentence that says what to do"),
                    hint=text('"Answer like a pirate."'),
                )
        self._check_length(descriptions)  # loads the encoder, which is not generating
        began = time.perf_counter()
        readings = self._read(descriptions)
        understood = [self._understood(reading) for reading in readings]
        for one in understood:
            if not one.phrases or (strict and one.confidence < SURE):
                raise NotUnderstood(
                    doubt(one),
                    found=repr(one.description)[:120],
                    expected=text("a confidence of at least {least}", least=SURE),
                )
        adapters = self._adapters(readings, understood, strength)
        took = (time.perf_counter() - began) / len(descriptions)
        return [
            Result(adapter, one, took) for adapter, one in zip(adapters, understood, strict=True)
        ]

    @torch.no_grad()
    def adapters(self, descriptions: Sequence[str]) -> list[Adapter | None]:
        """Adapters of many descriptions at once, for measuring: their cards say nothing of how
        they were understood. None where nothing was found in a description.
        """
        self._check_length(descriptions)
        readings = self._read(descriptions)
        found = [reading for reading in readings if len(reading.vectors)]
        made = iter(self._adapters(found, [None] * len(found), 1.0) if found else ())
        return [next(made) if len(reading.vectors) else None for reading in readings]

    def _adapters(
        self, readings: Sequence[Reading], told: Sequence[Understood | None], strength: float
    ) -> list[Adapter]:
        generated = self.network(self._described(readings))
        return [
            self._adapter(generated.factors, row, reading, one, strength)
            for row, (reading, one) in enumerate(zip(readings, told, strict=True))
        ]

    def _check_length(self, descriptions: Sequence[str]) -> None:
        embedder = self.reader.embedder
        for description, length in zip(descriptions, embedder.tokens(descriptions), strict=True):
            if length > embedder.longest:
                raise HypernetworkError(
                    text("the description is longer than the text encoder reads"),
                    expected=text("at most {longest} tokens", longest=embedder.longest),
                    found=str(length),
                    hint=repr(description[:60]),
                )

    def _read(self, descriptions: Sequence[str]) -> list[Reading]:
        """Without stray words that a tagger picks up in a sentence it has not seen."""

        def is_stray(phrase: str, vector: Tensor) -> bool:
            return len(phrase.split()) <= STRAY_WORDS and self.known.similarity(vector) < STRAY

        reader = self.reader
        return reader.read(
            descriptions,
            is_stray,
            lambda texts, found: mended(reader.embedder, self.known, texts, found),
        )

    def _described(self, readings: Sequence[Reading]) -> Described:
        return side_by_side([reading.vectors for reading in readings])

    def _understood(self, reading: Reading) -> Understood:
        names, signals = self._signals(reading)
        sure = self.confidence(signals) if self.confidence else signals.named
        phrases = tuple(phrase.text for phrase in reading.phrases) if len(reading.vectors) else ()
        own = [near for vector in reading.meanings for near in self.known.nearest(vector[None], 1)]
        negated = negations(reading.text, phrases, [near.text for near in own]) if own else ()
        doubtful = reading.left or negated
        return Understood(
            reading.text,
            names,
            phrases,
            tuple(p for p in (*reading.ignored, *reading.left) if not self.known.is_usual(p)),
            signals,
            round(sure * HALF if doubtful else sure, 4),
            tuple(self._nearest(reading.meanings)),
            negated,
            self._plainly(names, reading.meanings),
            self.confidence is not None,
        )

    def _nearest(self, vectors: Tensor) -> list[Near]:
        """The nearest known text to every part, then the next ones."""
        best = [near for vector in vectors for near in self.known.nearest(vector[None], 1)]
        more = self.known.nearest(vectors, 3 + len(best))
        kept = {near.primitive: near for near in (*best, *more)}
        return list(kept.values())[: max(3, len(best))]

    def _plainly(self, names: Sequence[str], vectors: Tensor) -> tuple[str, ...]:
        """A short known wording of each name, near to the part that it was said for."""
        apart = len(names) == len(vectors)
        found = [
            self.known.plainest(vectors[place] if apart else vectors.mean(0), name)
            for place, name in enumerate(names)
        ]
        return tuple(wording for wording in found if wording)

    def _signals(self, reading: Reading) -> tuple[tuple[str, ...], Signals]:
        if not len(reading.vectors):
            return (), Signals(0, 0, 0, 0, 0, 0, 0, 0)
        naming = self.network.naming
        described = self._described([reading])
        encoded, there = self.network.encoder(described)
        tagged = min(phrase.certainty for phrase in reading.phrases)
        whole = self.network.config.encoder != "spans"
        vectors = reading.meanings
        similarity = min(self.known.similarity(vector) for vector in vectors)
        if naming is None:
            return (), Signals(0.5, 0.5, 0.5, similarity, tagged, 0.5, 0.0, len(vectors))
        chosen = naming(encoded)[0][there[0]].softmax(-1)  # (parts, primitives)
        copies = Described(
            described.vectors.expand(COPIES, *described.vectors.shape[1:]),
            described.there.expand(COPIES, -1),
        ).noisy(NOISE, torch.Generator().manual_seed(0))
        voted = naming(self.network.encoder(copies)[0])  # (copies, parts, primitives)
        # all primitives share the one part, or each part has one
        count = int((chosen[0] >= chosen[0].max() / 2).sum()) if whole else 1
        best = chosen.topk(min(count + 1, chosen.shape[-1]))
        places = best.indices[:, :count].sort().values  # (parts, count)
        agreed = (voted.topk(count).indices.sort().values == places).all(-1).float().mean(0)
        others = best.values[:, count] if best.values.shape[1] > count else torch.zeros(1)
        names = [[self.network.primitives[place] for place in part] for part in places.tolist()]
        support = [
            self.known.support(vector, own) for vector, own in zip(vectors, names, strict=True)
        ]
        return tuple(dict.fromkeys(name for part in names for name in part)), Signals(
            float(best.values[:, :count].sum(-1).prod()),
            float(agreed.min()),
            float((best.values[:, count - 1] - others).min()),
            similarity,
            tagged,
            min(votes for votes, _ in support),
            min(gap for _, gap in support),
            len(vectors),
        )

    def _adapter(
        self,
        factors: Mapping[str, tuple[Tensor, Tensor]],
        row: int,
        reading: Reading,
        understood: Understood | None,
        strength: float,
    ) -> Adapter:
        scale = self.network.config.scale * strength
        rank = max(1, len(reading.phrases)) * self.network.config.rank
        updates = {
            layer: Update(down[row, :rank].clone(), up[row, :rank].mT.contiguous(), scale)
            for layer, (down, up) in factors.items()
        }
        card = Card(
            description=reading.text,
            base_model=self.base.name,
            config={
                "generated_by": self.name,
                "hypernetwork_sha256": self.digest,
                "strength": strength,
            },
            metrics={}
            if understood is None
            else {
                "confidence": understood.confidence,
                "understood_as": list(understood.primitives),
                **({"left_out": list(understood.ignored)} if understood.ignored else {}),
                **({"negated": list(understood.negated)} if understood.negated else {}),
            },
        )
        return Adapter(updates, _name(reading.text), self.base, card)


def _name(description: str) -> str:
    words = "".join(c if c.isalnum() else " " for c in description.lower()).split()
    return "-".join(words)[:48].strip("-") or "generated"
