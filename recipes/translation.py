"""Translation with the starter, German and English: an adapter beside examples in the prompt.

    python -m recipes.translation work/translation

The rows are sentences about the starter's world that say something mostly untrue ("Sushi is made of
maize."), so that reciting what the base knows does not help. Judged are two sets about subjects
that no training row is about: `subjects`, of attributes that training rows tell of, and `forms`, of
attributes that none does. What is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.evaluate.answers import answered
from detour.files import write_text_atomically
from detour.measure.statistics import Figure, mean
from detour.measure.texts import text_figures
from detour.model.base import Base
from detour.model.examples import Example
from detour.training.loop import train
from detour.training.world import Attribute, Subject, World

ASKED = {"en": "Translate into German: {told}", "de": "Übersetze ins Englische: {told}"}
UNTRAINED = (("person", "city"), ("animal", "diet"), ("city", "continent"), ("food", "taste"))
NEW_SUBJECTS = 0.2  # of each kind
TRAIN, TEST, SHOTS, SEEDS = 3000, 150, 4, 3  # rows a direction; rows a set and direction
SETTINGS = {"rank": 16, "alpha": 32.0, "steps": 600, "batch_size": 8}
METRICS = ("bleu", "chrf", "exact_match")


class Pairs:
    """Draws a sentence in one language and the same in the other."""

    def __init__(self, source: str) -> None:
        self.source, self.target = World.load(source), World.load("de" if source == "en" else "en")
        self.asked = ASKED[source]

    def draw(self, rng: random.Random, new: bool, trained: bool) -> Example:
        """About a new subject or a known one, of a trained attribute or one never trained."""
        while True:
            subject = rng.choice(self.source.subjects)
            attribute = rng.choice(self.source.attributes_of(subject.kind))
            is_trained = (attribute.kind, attribute.name) not in UNTRAINED
            if is_new(subject) is new and is_trained is trained:
                return self._pair(rng, subject, attribute)

    def _pair(self, rng: random.Random, subject: Subject, attribute: Attribute) -> Example:
        value = rng.choice(self.source.values(attribute))
        meant = self.source.translated(subject, attribute, value, self.target)
        assert meant is not None  # every value is somebody's
        said = rng.choice(self.source.statements(subject, attribute, value))
        twin = self.target.twin(subject)
        there = self.target.attributes[attribute.kind, attribute.name]
        return example(self.asked.format(told=said), self.target.statement(twin, there, meant))


def example(asked: str, answer: str) -> Example:
    """One question and its answer."""
    return Example(({"role": "user", "content": asked}, {"role": "assistant", "content": answer}))


def is_new(subject: Subject) -> bool:
    """Whether no training row is about it; the same in both languages.

    A few name it beside another subject: "Karl Nessler is known for the dome of Florence."
    """
    return random.Random(f"translation/{subject.kind}/{subject.key}").random() < NEW_SUBJECTS


def rows() -> tuple[list[Example], dict[str, list[Example]]]:
    """Training rows of both directions, and the sets that judge by name."""
    trained: list[Example] = []
    judged: dict[str, list[Example]] = {}
    for source in ASKED:
        pairs, rng = Pairs(source), random.Random(f"translation/{source}")
        trained += _some(pairs, rng, TRAIN, new=False, trained=True)
        way = f"{source}-{pairs.target.language}"
        judged[f"subjects {way}"] = _some(pairs, rng, TEST, new=True, trained=True)
        judged[f"forms {way}"] = _some(pairs, rng, TEST, new=True, trained=False)
    return trained, judged


def _some(pairs: Pairs, rng: random.Random, count: int, new: bool, trained: bool) -> list[Example]:
    """So many different rows."""
    found: dict[str, Example] = {}
    while len(found) < count:
        row = pairs.draw(rng, new, trained)
        found.setdefault(row.prompt, row)
    return list(found.values())


def with_shots(judged: Sequence[Example], trained: Sequence[Example]) -> list[Example]:
    """Every row behind worked examples of its direction."""
    made: list[Example] = []
    for place, row in enumerate(judged):
        direction = row.prompt.partition(":")[0]
        pool = [one for one in trained if one.prompt.startswith(direction)]
        shots = random.Random(f"translation/shots/{place}").sample(pool, SHOTS)
        before = tuple(message for shot in shots for message in shot.messages)
        made.append(Example((*before, *row.messages)))
    return made


def write(folder: Path, trained: Sequence[Example], judged: dict[str, list[Example]]) -> None:
    """The same rows as files for `detour train` and `detour evaluate`."""
    sets = {"train": trained}
    for name, own in judged.items():
        plain = name.replace(" ", "-")
        sets |= {plain: own, f"{plain}-shots": with_shots(own, trained)}
    for name, own in sets.items():
        lines = [json.dumps({"messages": row.messages}, ensure_ascii=False) for row in own]
        write_text_atomically(folder / f"{name}.jsonl", "".join(line + "\n" for line in lines))


def run(base: Base, folder: Path, arm: str) -> dict[str, Any]:
    """One arm on every set: `copy` (the sentence itself), `base`, `shots`, or `adapter-SEED`."""
    trained, judged = rows()
    return {
        name: {metric: told[metric].to_json() for metric in METRICS}
        for name, own in judged.items()
        for told in [figures(base, folder, arm, own, trained)]
    }


def figures(
    base: Base, folder: Path, arm: str, judged: Sequence[Example], trained: Sequence[Example]
) -> Mapping[str, Figure]:
    """One arm on one set; an adapter that is not there yet is trained."""
    if arm == "copy":
        said = [row.prompt.partition(": ")[2] for row in judged]
        return text_figures([row.messages[-1]["content"] for row in judged], said, corpus=True)
    if arm == "shots":
        return answered(base, with_shots(judged, trained)).figures
    return answered(base, judged, adapter_of(base, folder, arm, trained)).figures


def adapter_of(base: Base, folder: Path, arm: str, trained: Sequence[Example]) -> Adapter | None:
    """None for `base`."""
    if arm == "base":
        return None
    if not (folder / arm).exists():
        seed = int(arm.rpartition("-")[2])
        train(base, trained, name=arm, seed=seed, **SETTINGS).save(folder / arm)
    return Adapter.load(folder / arm)


def main() -> None:
    """Run what is missing, and tell the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--arm", help="only this one, such as adapter-0")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    write(given.work, *rows())
    base = Base.load("starter")
    seeds = [f"adapter-{seed}" for seed in range(SEEDS)]
    told: dict[str, dict[str, Any]] = {}
    for arm in [given.arm] if given.arm else ["copy", "base", "shots", *seeds]:
        path = given.work / f"{arm}.json"
        if not path.exists():
            write_text_atomically(path, json.dumps(run(base, given.work, arm)))
        told[arm] = json.loads(path.read_text("utf-8"))
    if not given.arm:
        told["adapters"] = {
            name: {m: mean([told[seed][name][m]["value"] for seed in seeds]).to_json()
                   for m in METRICS}
            for name in told["base"]
        }  # fmt: skip
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
