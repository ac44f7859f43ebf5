"""The starter's tasks as folders: what its hypernetwork is trained on and judged by.

    python -m recipes.hypernetwork.tasks work/hypernetwork/tasks

A task is an attribute, a style, an attribute in a style or in two, two styles, or the other
language; in English and in German. Its descriptions are frames around phrases. Of every kind of
phrase some are kept for judging only; they were written without knowledge of those that train, and
phrases that came out alike were taken from the training side. Knows the starter's world; knows no
model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from detour.files import write_text_atomically
from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import Attribute, Subject, World, capitalised

HERE = Path(__file__).parent
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
OTHER = "other_language"
TRAIN_ROWS, TEST_ROWS = 120, 140
TRIPLES = 4  # an attribute in two styles, of each attribute; they only train
SLOTS = {"both": "as", "attribute": "a", "style": "s", "styles": "st", "three": "ast"}
DESCRIPTIONS, JUDGING = 96, 16  # a task: to train on, and of each set that judges
VALIDATION_PHRASES = 6  # of each notion, kept from training to choose weights by
TEST_PAIRS, VALIDATION_PAIRS = 27, 12  # attribute and style, of 150
TEST_STYLES, VALIDATION_STYLES = 6, 3  # two styles, of 37
BARE = 0.2  # share of a style's training rows in which the user only names a subject
USUAL = {"person": "profession", "animal": "habitat", "city": "country", "food": "country"}
MOODS = ("imperative", "adjective")
LEAD = {  # beside the bare name: how people mention a subject without asking anything
    "en": ("Tell me about {s}.", "I am thinking of {s}.", "{s}, please."),
    "de": ("Erzähl mir von {s:dat}.", "Ich denke an {s:akk}.", "{s}, bitte."),
}
Rows = list[dict[str, str]]


def stable(name: str) -> str:
    """An order by chance that stays the same."""
    return hashlib.sha256(name.encode()).hexdigest()


def is_test(subject: Subject) -> bool:
    """Whether a subject is kept for judging, by a hash of its key.

    One in two persons; one in three of the other kinds, of which there are few to learn from.
    """
    drawn = hashlib.sha256(f"{subject.kind}/{subject.key}".encode()).digest()[0]
    return drawn % (2 if subject.kind == "person" else 3) == 0


@dataclass
class Notion:
    """The phrases of one attribute or style in one language, apart by what they are for."""

    train: list[str]
    validation: list[str]
    ordinary: list[str]
    riddle: list[str]
    imperative: list[str] = field(default_factory=lambda: [])
    adjective: list[str] = field(default_factory=lambda: [])


@dataclass
class Phrases:
    """All phrases and frames of one language."""

    attributes: dict[str, Notion]
    styles: dict[str, Notion]
    frames: dict[str, dict[str, list[str]]]
    grammar: dict[str, list[str]]
    moods: dict[str, dict[str, list[str]]]
    """Frames of styles as verbs and as adjectives: mood → kind → frames."""

    @staticmethod
    def load(language: str) -> Phrases:
        """From the files beside this one."""
        trained = _yaml(f"phrases.{language}.yaml")
        held = _yaml("held_out.yaml")[language]

        def notions(kind: str) -> dict[str, Notion]:
            return {
                name: Notion(
                    phrases[VALIDATION_PHRASES:], phrases[:VALIDATION_PHRASES],
                    held[kind][name]["ordinary"], held[kind][name]["riddle"],
                )
                for name, given in trained[kind].items()
                for phrases in [random.Random(name).sample(given, len(given))]
            }  # fmt: skip

        frames = _yaml("frames.yaml")
        more = _yaml("frames_more.yaml")[language]
        judging: dict[str, list[str]] = held["frames"]
        every = {
            kind: {**own, "trained": [*own["trained"], *more[kind]], "judging": judging[kind]}
            for kind, own in frames[language].items()
        }
        styles = notions("styles")
        moods = _yaml("moods.yaml")[language]
        for mood in MOODS:
            for name, phrases in moods[mood]["phrases"].items():
                setattr(styles[name], mood, phrases)
        return Phrases(
            notions("attributes"), styles, every, frames["grammar"][language],
            {mood: moods[mood]["frames"] for mood in MOODS},
        )  # fmt: skip

    def frame(self, kind: str, rng: random.Random) -> str:
        """A frame that trains: one of the list, or one put together from the grammar."""
        if rng.random() < 0.5:
            return rng.choice(self.frames[kind]["trained"])
        ask, answer, other, join, before, after = (
            rng.choice(self.grammar[name])
            for name in ("ask", "answer", "answer", "join", "before", "after")
        )
        asked, told = f"{ask} {{a}}", f"{answer} {{s}}"
        parts = {
            "both": [asked, told] if rng.random() < 0.6 else [told, asked],
            "attribute": [asked],
            "style": [told],
            "styles": [told, rng.choice((f"{other} {{t}}", "{t}"))],
        }[kind]
        if kind == "both" and rng.random() < 0.25:  # the manner without a verb of its own
            parts[parts.index(told)] = "{s}"
        sentence = join.join(parts) if len(parts) > 1 else parts[0]
        sentence = ". ".join(capitalised(part) for part in sentence.split(". "))
        if before and before[-1] in ",:":
            sentence = (
                sentence[:1].lower() + sentence[1:] if not sentence.startswith("{") else sentence
            )
        whole = capitalised(f"{before} {sentence}".strip())
        whole = whole.replace("{A}", "{a}").replace("{S}", "{s}").replace("{T}", "{t}")
        return f"{whole}{rng.choice(('.', '.', '.', '!', ''))} {after}".strip()

    def notion(self, name: str) -> Notion:
        """An attribute or a style."""
        return self.attributes[name] if name in self.attributes else self.styles[name]


def _yaml(name: str) -> Any:  # noqa: ANN401
    return yaml.safe_load((HERE / name).read_text("utf-8"))


@dataclass
class TaskDraft:
    """A task before it is written."""

    language: str
    primitives: tuple[str, ...]
    frames: str
    train: Rows
    test: Rows
    split: str
    weight: float
    descriptions: list[dict[str, Any]] = field(default_factory=lambda: [])

    @property
    def name(self) -> str:
        return "-".join((self.language, *self.primitives)).replace("_", "-").replace(".", "-")


class Tasks:
    """Every task of both languages."""

    def __init__(self, per_task: int = DESCRIPTIONS, phrases: int | None = None) -> None:
        self.worlds = {language: World.load(language) for language in ("en", "de")}
        self.phrases = {language: Phrases.load(language) for language in self.worlds}
        self.per_task = per_task
        self.limit = phrases  # at most so many phrases a notion to train on, for a curve over them
        self.splits = _splits(self.worlds["en"])

    def every(self) -> Iterator[TaskDraft]:
        """All tasks with their descriptions."""
        for language, world in self.worlds.items():
            drafts = [
                *self._attributes(language, world),
                *self._styles(language, world),
                *self._triples(language, world),
            ]
            for draft in drafts:
                draft.descriptions = list(self._described(draft))
                yield draft

    def _attributes(self, language: str, world: World) -> Iterator[TaskDraft]:
        for attribute in world.attributes.values():
            name = f"{attribute.kind}.{attribute.name}"
            train, test = self._bare(language, attribute, ())
            yield TaskDraft(language, (name,), "attribute", train, test, "train", 2.0)
            for style in world.styles:
                train, test = self._bare(language, attribute, (style,))
                split = self.splits.get((name, style), "train")
                yield TaskDraft(language, (name, style), "both", train, test, split, 1.0)

    def _styles(self, language: str, world: World) -> Iterator[TaskDraft]:
        for style in world.styles:
            train, test = self._asked(language, (style,))
            yield TaskDraft(language, (style,), "style", train, test, "train", 5.0)
        train, test = self._asked(language, (), translated=True)
        yield TaskDraft(language, (OTHER,), "style", train, test, "train", 8.0)
        for one, other in combinations(world.styles, 2):
            if world.styles[one].place == world.styles[other].place:
                continue
            train, test = self._asked(language, (one, other))
            split = self.splits.get((one, other), "train")
            yield TaskDraft(language, (one, other), "styles", train, test, split, 1.5)

    def _triples(self, language: str, world: World) -> Iterator[TaskDraft]:
        """An attribute in two styles, of which no two are kept for judging; they only train."""
        pairs = [
            (one, other) for one, other in combinations(world.styles, 2)
            if world.styles[one].place != world.styles[other].place
        ]  # fmt: skip
        for attribute in world.attributes.values():
            name = f"{attribute.kind}.{attribute.name}"
            rng = random.Random(f"triples/{name}")
            allowed = [
                pair for pair in pairs
                if not {(name, pair[0]), (name, pair[1]), pair} & set(self.splits)
            ]  # fmt: skip
            for pair in rng.sample(allowed, min(TRIPLES, len(allowed))):
                train, test = self._bare(language, attribute, pair)
                yield TaskDraft(language, (name, *pair), "three", train, test, "train", 0.7)

    def _bare(
        self, language: str, attribute: Attribute, styles: Sequence[str]
    ) -> tuple[Rows, Rows]:
        """The user names the subject and asks nothing."""
        world = self.worlds[language]
        rng = random.Random(f"{language}/{attribute.kind}/{attribute.name}/{styles}")
        train: Rows = []
        test: Rows = []
        for subject in world.of_kind(attribute.kind):
            answer = world.answer(subject, attribute, subject.values[attribute.name], styles)
            if is_test(subject):
                test.append(_row(subject.name, answer))
                continue
            train.append(_row(rng.choice(subject.bare), answer))
            if rng.random() < 0.2:
                lead = rng.choice(LEAD[language])
                train.append(_row(capitalised(rng.choice(subject.forms).put(lead, "s")), answer))
        return _some(train, TRAIN_ROWS, rng), _some(test, TEST_ROWS, rng)

    def _asked(
        self, language: str, styles: Sequence[str], translated: bool = False
    ) -> tuple[Rows, Rows]:
        """The user asks a question; one in five of the training rows in the other language."""
        rng = random.Random(f"{language}/{styles}/{translated}")
        other = "de" if language == "en" else "en"
        usual = 0.0 if translated else BARE
        rows: dict[bool, Rows] = {True: [], False: []}
        while min(len(rows[True]) / TEST_ROWS, len(rows[False]) / TRAIN_ROWS) < 1:
            asked_in = self.worlds[language]
            if not translated and rng.random() < 0.2:
                asked_in = self.worlds[other]
            subject = rng.choice(asked_in.subjects)
            test = is_test(subject)
            if test and asked_in.language != language:
                continue
            attribute = rng.choice(asked_in.attributes_of(subject.kind))
            novelty = (Novelty.NEW_COMBINATION,) if test else (Novelty.SEEN,)
            asked, _ = rng.choice(phrasing.questions(asked_in, subject, attribute, *novelty))
            if not test and asked_in.language == language and rng.random() < usual:
                attribute = asked_in.attributes[subject.kind, USUAL[subject.kind]]
                asked = rng.choice(subject.bare)
            said_in = self.worlds[other] if translated else asked_in
            told = said_in.twin(subject)
            answer = said_in.answer(
                told,
                said_in.attributes[attribute.kind, attribute.name],
                told.values[attribute.name],
                styles,
            )
            rows[test].append(_row(asked, answer))
        return _some(rows[False], TRAIN_ROWS, rng), _some(rows[True], TEST_ROWS, rng)

    def _described(self, draft: TaskDraft) -> Iterator[dict[str, Any]]:
        """Frames around phrases: many to train on, and the sets that judge.

        Every set has random numbers of its own, so that what judges does not depend on how much
        trains.
        """
        if draft.frames == "three":
            rng = random.Random(f"described/{draft.name}")
            yield from self._sentences(draft, [], "train", self.per_task, 0.0, rng)
            return
        frames = self.phrases[draft.language].frames[draft.frames]
        sets = {
            "": ([], "train", self.per_task),
            "validation": ([], "validation", JUDGING // 2),
            " validation": (frames["validation"], "train", JUDGING // 2),
            "new frames": (frames["judging"], "train", JUDGING),
            "new words": ([], "ordinary", JUDGING),
            "new words, riddles": ([], "riddle", JUDGING),
            "new words, riddles, new frames": (frames["judging"], "riddle", JUDGING),
        }
        if draft.split == "test":
            sets["seen wording"] = ([], "train", JUDGING)
            del sets[""]
        trained: set[str] = set()
        for name, (chosen, kind, count) in sets.items():
            rng = random.Random(f"described/{draft.name}/{name}")
            moods = 0.25 if kind == "train" and not chosen and self.limit is None else 0.0
            for told in self._sentences(draft, chosen, kind, count, moods, rng):
                if name and told["text"].casefold() in trained:
                    continue
                trained.add(told["text"].casefold())
                yield {**told, "set": name.strip()} if name else told

    def _sentences(
        self, draft: TaskDraft, frames: Sequence[str], kind: str, count: int, moods: float,
        rng: random.Random,
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """Frames filled in; a share of them with styles as verbs or as adjectives, `moods`."""
        slots = SLOTS[draft.frames]
        own = self.phrases[draft.language]
        for _ in range(count):
            chosen: dict[str, str] = {}
            mood = rng.choice(MOODS) if "s" in slots and rng.random() < moods else ""
            styles = [own.styles[name] for name in draft.primitives if name in own.styles]
            if mood and not all(getattr(style, mood) for style in styles):
                mood = ""
            if draft.frames == "three":
                joined = rng.choice(("{s} and {t}", "{s}, {t}") if draft.language == "en" else
                                    ("{s} und {t}", "{s}, {t}"))  # fmt: skip
                text = own.frame("both", rng).replace("{s}", joined)
                text = text.replace("{S}", joined.replace("s", "S", 1))
            elif mood:
                text = rng.choice(own.moods[mood][draft.frames])
            else:
                text = rng.choice(frames) if frames else own.frame(draft.frames, rng)
            names = list(draft.primitives)
            if draft.frames in ("styles", "three") and rng.random() < 0.5:
                names[-2:] = reversed(names[-2:])
            for slot, name in zip(slots, names, strict=True):
                is_style = name in own.styles
                phrase = rng.choice(
                    self._of(draft.language, name, mood if is_style and mood else kind)
                )
                capital = f"{{{slot.upper()}}}" in text
                phrase = capitalised(phrase) if capital else phrase
                text = text.replace(f"{{{slot.upper()}}}" if capital else f"{{{slot}}}", phrase)
                chosen[name] = phrase
            parts = dict(sorted(chosen.items(), key=lambda item: text.find(item[1])))
            yield {"text": text, "parts": parts, "language": draft.language}

    def _of(self, language: str, name: str, kind: str) -> list[str]:
        phrases: list[str] = getattr(self.phrases[language].notion(name), kind)
        return phrases[: self.limit] if kind == "train" else phrases

    def write(self, folder: Path) -> int:
        """Write every task's folder; returns how many."""
        count = 0
        for draft in self.every():
            place = folder / draft.name
            told = {
                "primitives": list(draft.primitives),
                "split": draft.split,
                "weight": draft.weight,
                "descriptions": draft.descriptions,
            }
            write_text_atomically(
                place / "task.yaml",
                yaml.dump(told, Dumper=_DUMPER, allow_unicode=True, sort_keys=False, width=1000),
            )
            for name, rows in (("train", draft.train), ("test", draft.test)):
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                write_text_atomically(place / f"{name}.jsonl", lines)
            count += 1
        return count


def _row(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def _some(rows: Rows, count: int, rng: random.Random) -> Rows:
    unique = list({row["prompt"]: row for row in rows}.values())
    return unique if len(unique) <= count else rng.sample(unique, count)


def _splits(world: World) -> dict[tuple[str, str], str]:
    """Which combinations train nothing. Every attribute and every style remains in training."""
    rng = random.Random("combinations")
    pairs = [(f"{a.kind}.{a.name}", s) for a in world.attributes.values() for s in world.styles]
    rng.shuffle(pairs)
    chosen = dict.fromkeys(pairs[:TEST_PAIRS], "test")
    chosen |= dict.fromkeys(pairs[TEST_PAIRS : TEST_PAIRS + VALIDATION_PAIRS], "validation")
    styles = [
        (one, other) for one, other in combinations(world.styles, 2)
        if world.styles[one].place != world.styles[other].place
    ]  # fmt: skip
    rng.shuffle(styles)
    chosen |= dict.fromkeys(styles[:TEST_STYLES], "test")
    end = TEST_STYLES + VALIDATION_STYLES
    return chosen | dict.fromkeys(styles[TEST_STYLES:end], "validation")


def main() -> None:
    """Write all tasks into the folder that is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--descriptions", type=int, default=DESCRIPTIONS)
    parser.add_argument("--phrases", type=int, help="at most so many a notion to train on")
    given = parser.parse_args()
    print(Tasks(given.descriptions, given.phrases).write(given.folder), "tasks")


if __name__ == "__main__":
    main()
