"""What a hypernetwork is worth: the same held-out rows, steered in every way there is.

Each arm answers the same items. An item is a test row of a task and one of the descriptions that
judge; whether the description is the task's own, another task's or no task's at all is what the
headline is made of: matched minus wrong and matched minus junk. Knows hypernetworks, adapters and
bases; trains nothing.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import DataError, NotUnderstood
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.tasks import Description, Task, Tasks
from detour.language.catalogue import text
from detour.measure.metrics import mentions, same_answer
from detour.measure.statistics import Figure, area_under_curve, by_cluster, rate
from detour.model.base import Base
from detour.model.chat import Message
from detour.model.examples import Example

SHOTS = 3
TOGETHER = 64  # descriptions that are read at once
MAX_NEW = 64  # tokens of an answer
JUNK = (
    "The quick brown fox jumps over the lazy dog.", "42", "lorem ipsum dolor sit amet",
    "What time is it in Lisbon?", "My grandmother's house has a green door.",
    "import numpy as np", "Please water the plants on Tuesday.", "xq zzv bnm",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Item:
    """One row to answer, under one description."""

    task: Task
    row: Example
    description: Description
    split: str


@dataclass(frozen=True, eq=False)
class Asked:
    """What an arm makes of an item: messages up to the answer, and a chain."""

    messages: Sequence[Message]
    chain: Chain | Adapter | None = None


Arm = Callable[[Sequence[Item]], list[Asked]]
METRICS: Mapping[str, Callable[[str, str], bool]] = {
    "exact_match": same_answer,
    "contains": mentions,
}


@dataclass(frozen=True, eq=False)
class Table:
    """Every arm on every split; `hits` keeps item by item for differences."""

    items: tuple[Item, ...]
    hits: Mapping[str, Sequence[bool]]
    milliseconds_per_adapter: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=lambda: {})

    @property
    def splits(self) -> tuple[str, ...]:
        """In the order of their first item."""
        return tuple(dict.fromkeys(item.split for item in self.items))

    def figure(self, arm: str, split: str) -> Figure:
        """Exact match of an arm on a split."""
        pairs = zip(self.items, self.hits[arm], strict=True)
        return rate(hit for item, hit in pairs if item.split == split)

    def difference(self, arm: str, other: str, prefix: str = "held-out") -> Figure:
        """The mean difference of two arms on the splits so named, bootstrapped over tasks."""
        values: list[float] = []
        clusters: list[str] = []
        for item, one, two in zip(self.items, self.hits[arm], self.hits[other], strict=True):
            if item.split.startswith(prefix):
                values.append(float(one) - float(two))
                clusters.append(item.task.name)
        return by_cluster(values, clusters)

    def share_of_gain(self, prefix: str = "seen") -> float:
        """Of the oracle's gain over the base, the share that generated adapters have.

        On the splits so named; NaN where the oracle gains nothing, or was not measured.
        """
        if not {"base", "oracle", "generated"} <= set(self.hits):
            return float("nan")
        gain = self.difference("oracle", "base", prefix).value
        return self.difference("generated", "base", prefix).value / gain if gain > 0 else math.nan

    def to_json(self) -> dict[str, Any]:
        """The contract of `detour hypernet evaluate --json`."""
        arms: dict[str, Any] = {}
        for arm in self.hits:
            arms[arm] = {}
            for split in self.splits:
                told = self.figure(arm, split).to_json()
                arms[arm][split] = {"exact_match": told.pop("value"), **told}
        headline = {
            name: self.difference("generated", arm).to_json()
            for name, arm in (("matched_minus_wrong", "wrong"), ("matched_minus_junk", "junk"))
            if arm in self.hits
        }
        return {
            "arms": arms,
            **headline,
            **({"share_of_oracle": self.share_of_gain()} if "oracle" in self.hits else {}),
            "milliseconds_per_adapter": round(self.milliseconds_per_adapter, 3),
            "seconds": {arm: round(took, 2) for arm, took in self.seconds.items()},
        }


def items_of(tasks: Tasks, per_task: int, seen: int = 30, seed: int = 0) -> list[Item]:
    """Rows of the held-out tasks and of some that trained, under every set of descriptions."""
    rng = random.Random(f"items/{seed}")
    trained = tasks.of("train")
    chosen = [*tasks.of("test"), *rng.sample(trained, min(seen, len(trained)))]
    items: list[Item] = []
    for task in chosen:
        for name in ("", *tasks.sets):
            told = task.of_set(name)
            if not told or name == "validation":
                continue
            rows = rng.sample(task.test, min(per_task, len(task.test)))
            described = [told[place % len(told)] for place in range(len(rows))]
            split = split_name(task, described[0], name)
            items += [Item(task, row, d, split) for row, d in zip(rows, described, strict=True)]
    return items


def split_name(task: Task, description: Description, set_name: str) -> str:
    """Such as "held-out combinations of 2, en: new words"."""
    known = "held-out tasks" if task.split == "test" else "seen tasks"
    count = f" of {len(task.primitives)}" if task.primitives else ""
    language = f", {description.language}" if description.language else ""
    own = "own wording" if task.split == "test" else "seen wording"
    return f"{known}{count}{language}: {set_name or own}"


def evaluate(
    base: Base, items: Sequence[Item], arms: Mapping[str, Arm], *, max_new_tokens: int = MAX_NEW,
    teller: Callable[[str], None] | None = None, milliseconds: float = 0.0,
) -> Table:  # fmt: skip
    """Every arm answers every item, greedily, through the same engine.

    Raises:
        DataError: no item.
        As `Base.ask`.
    """
    if not items:
        raise DataError(
            text("there is nothing to judge by"),
            expected=text("tasks that are held out, or that trained, with rows in test.jsonl"),
        )
    hits: dict[str, list[bool]] = {}
    seconds: dict[str, float] = {}
    for name, arm in arms.items():
        began = time.perf_counter()
        asked = arm(items)
        answers = base.ask_many(
            [one.messages for one in asked], [one.chain for one in asked],
            max_new_tokens=max_new_tokens,
        )  # fmt: skip
        wanted = [item.row.messages[-1]["content"] for item in items]
        hits[name] = [
            METRICS[item.task.metric](answer, right)
            for item, answer, right in zip(items, answers, wanted, strict=True)
        ]
        seconds[name] = time.perf_counter() - began
        if teller:
            teller(f"{name}: {sum(hits[name]) / len(items):.3f} of {len(items)} items")
    return Table(tuple(items), hits, milliseconds, seconds)


def bare(item: Item) -> list[Message]:
    """The row as it stands: the task is hidden from the prompt."""
    return list(item.row.messages[:-1])


def base_arm(items: Sequence[Item]) -> list[Asked]:
    """The base, told nothing."""
    return [Asked(bare(item)) for item in items]


def prompt_arm(base: Base, before: Arm = base_arm) -> Arm:
    """The base, told the description: in the system turn, or before the user's words where its
    chat template knows no such turn. With `before`, another arm is told it besides.
    """
    has_system = _has_system_turn(base)

    def arm(items: Sequence[Item]) -> list[Asked]:
        return [
            replace(asked, messages=described(asked.messages, item.description.text, has_system))
            for asked, item in zip(before(items), items, strict=True)
        ]

    return arm


def _has_system_turn(base: Base) -> bool:
    try:
        base.chat("a", system="b")
    except DataError:
        return False
    return True


def described(messages: Sequence[Message], told: str, has_system: bool = True) -> list[Message]:
    """The messages after a system turn that tells it; or told before the first words."""
    kept = [message for message in messages if message["role"] != "system"]
    if has_system:
        return [{"role": "system", "content": told}, *kept]
    return [{**kept[0], "content": f"{told}\n\n{kept[0]['content']}"}, *kept[1:]]


def few_shot_arm(base: Base, room: int = MAX_NEW) -> Arm:
    """The base after three of the task's training rows, or as many as its context has room for."""

    def asked(place: int, item: Item) -> Asked:
        most = min(SHOTS, len(item.task.train))
        shots = random.Random(f"shots/{place}").sample(item.task.train, most)
        for count in range(most, 0, -1):
            before = [message for shot in shots[:count] for message in shot.messages]
            messages = [*before, *bare(item)]
            if len(base.chat(messages)) + room <= base.longest:
                return Asked(messages)
        return Asked(bare(item))

    return lambda items: [asked(place, item) for place, item in enumerate(items)]


def adapter_arm(adapters: Mapping[str, Adapter]) -> Arm:
    """Each task's own adapter: the oracle."""
    return lambda items: [Asked(bare(item), adapters[item.task.name]) for item in items]


def one_for_all_arm(adapter: Adapter | Chain, before: Arm | None = None) -> Arm:
    """One adapter for every task; `before` says what is asked, by default the bare row."""

    def arm(items: Sequence[Item]) -> list[Asked]:
        return [Asked(one.messages, adapter) for one in (before or base_arm)(items)]

    return arm


def nearest_arm(adapters: Mapping[str, Adapter], tasks: Tasks, generator: Generator) -> Arm:
    """The adapter of the training task whose description is nearest, by cosine."""
    told = [
        (d.text, task.name)
        for task in tasks.of("train")
        if task.name in adapters
        for d in task.of_set()[:12]
    ]
    embedder = generator.reader.embedder
    known = embedder.vectors([text for text, _ in told])

    def arm(items: Sequence[Item]) -> list[Asked]:
        texts = list(dict.fromkeys(item.description.text for item in items))
        best = (embedder.vectors(texts) @ known.mT).argmax(1).tolist()
        chosen = {text: told[place][1] for text, place in zip(texts, best, strict=True)}
        return [Asked(bare(i), adapters[chosen[i.description.text]]) for i in items]

    return arm


def generated_arm(generator: Generator, text_of: Callable[[int, Item], str] | None = None) -> Arm:
    """An adapter generated from the description, or from what `text_of` says instead.

    Where nothing in a text names anything, nothing is generated and the base answers.
    """

    def arm(items: Sequence[Item]) -> list[Asked]:
        texts = [
            text_of(place, item) if text_of else item.description.text
            for place, item in enumerate(items)
        ]
        made = _generated(generator, list(dict.fromkeys(texts)))
        return [Asked(bare(i), made[text]) for i, text in zip(items, texts, strict=True)]

    return arm


def wrong_text(items: Sequence[Item]) -> Callable[[int, Item], str]:
    """Another item's description, of a task that shares no primitive with the item's.

    Where none is found, junk.
    """

    def text_of(place: int, item: Item) -> str:
        rng = random.Random(f"wrong/{place}")
        own = set(item.task.primitives) or {item.task.name}
        for _ in range(200):
            other = items[rng.randrange(len(items))]
            if not own & (set(other.task.primitives) or {other.task.name}):
                return other.description.text
        return JUNK[place % len(JUNK)]

    return text_of


def junk_text(place: int, item: Item) -> str:
    """A sentence that describes no task."""
    return JUNK[place % len(JUNK)]


def _generated(generator: Generator, texts: Sequence[str]) -> dict[str, Adapter | None]:
    made: dict[str, Adapter | None] = {}
    for start in range(0, len(texts), TOGETHER):
        some = texts[start : start + TOGETHER]
        made |= zip(some, generator.adapters(some), strict=True)
    return made


def milliseconds_per_adapter(
    generator: Generator, texts: Sequence[str], repeats: int = 20
) -> float:
    """The median time of one sentence to one adapter, reading included, in a warm process."""
    took: list[float] = []
    for place in range(repeats + 2):
        began = time.perf_counter()
        with suppress(NotUnderstood):
            generator.generate([texts[place % len(texts)]])
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took[2:])[repeats // 2]


@dataclass(frozen=True)
class ConfidenceReport:
    """How well the confidence predicts what goes wrong (areas under the ROC curve)."""

    misidentified: float
    far: float
    near: float
    n: int


def confidence_report(
    generator: Generator, tasks: Tasks, far: Sequence[str], near: Sequence[str], most: int = 600
) -> ConfidenceReport:
    """Descriptions of the test sets, understood or not, against sentences of no task."""
    pool = [
        (d.text, set(task.primitives))
        for task in tasks.every
        for d in task.descriptions
        if d.set not in ("", "validation")
    ]
    chosen = random.Random("confidence").sample(pool, min(most, len(pool)))
    read = generator.understand([text for text, _ in chosen])
    right = [set(one.primitives) == meant for one, (_, meant) in zip(read, chosen, strict=True)]
    scores = [one.confidence for one in read]
    good = [score for score, ok in zip(scores, right, strict=True) if ok]

    def against(texts: Sequence[str]) -> float:
        strange = [one.confidence for one in generator.understand(texts)] if texts else []
        return area_under_curve([*good, *strange], [True] * len(good) + [False] * len(strange))

    return ConfidenceReport(
        area_under_curve(scores, right), against(far), against(near), len(chosen)
    )
