"""The starter's task folders: what trains and what judges is kept apart, in both languages."""

from collections import Counter
from typing import Any

import pytest
from recipes.hypernetwork import beyond, experiment, publish, tables
from recipes.hypernetwork import tasks as recipe

from detour.hypernetwork.tasks import Tasks, read_tasks
from detour.training.world import World


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    folder = tmp_path_factory.mktemp("tasks")
    assert recipe.Tasks(per_task=6).write(folder) == 546
    return read_tasks(folder)  # which asserts that descriptions, phrases and rows are disjoint


@pytest.mark.long
def test_the_same_combinations_are_held_out_in_both_languages(written: Tasks) -> None:
    for split, count in (("test", 33), ("validation", 15)):
        names = {task.name for task in written.of(split)}
        english = {name[3:] for name in names if name.startswith("en-")}
        assert english == {name[3:] for name in names if name.startswith("de-")}
        assert len(english) == count


@pytest.mark.long
def test_every_primitive_is_trained_and_every_held_out_pair_is_not(written: Tasks) -> None:
    trained = {task.primitives for task in written.of("train")}
    assert {name for names in trained for name in names} == set(written.primitives)
    held = {task.primitives for task in (*written.of("test"), *written.of("validation"))}
    assert not trained & held


@pytest.mark.long
def test_judging_descriptions_are_of_every_set(written: Tasks) -> None:
    for task in written.of("test"):
        counts = Counter(description.set for description in task.descriptions)
        assert "" not in counts
        sets = {"seen wording", "new frames", "new words", "new words, riddles"}
        assert sets <= set(counts)


@pytest.mark.long
def test_the_subjects_of_test_rows_are_never_trained_on(written: Tasks) -> None:
    world = World.load("en")
    for task in written.every:
        if not task.name.startswith("en-person-") or task.split == "train":
            continue
        rows = {row.messages[0]["content"] for row in task.test}
        assert rows
        assert all(recipe.is_test(subject) for s in rows if (subject := world.subject(s, "person")))


def test_phrases_that_judge_are_not_among_those_that_train() -> None:
    for language in ("en", "de"):
        phrases = recipe.Phrases.load(language)
        for name in (*phrases.attributes, *phrases.styles):
            notion = phrases.notion(name)
            trained = {phrase.casefold() for phrase in (*notion.train, *notion.validation)}
            assert not trained & {p.casefold() for p in (*notion.ordinary, *notion.riddle)}
        for frames in phrases.frames.values():
            apart = [set(frames[part]) for part in ("trained", "validation", "judging")]
            assert not apart[0] & apart[1]
            assert not (apart[0] | apart[1]) & apart[2]


def test_styles_as_verbs_and_adjectives_are_no_phrases_that_judge() -> None:
    for language in ("en", "de"):
        phrases = recipe.Phrases.load(language)
        for name, notion in phrases.styles.items():
            judged = {p.casefold() for p in (*notion.ordinary, *notion.riddle)}
            moods = {p.casefold() for mood in recipe.MOODS for p in getattr(notion, mood)}
            assert moods, name
            assert not moods & judged, name


@pytest.mark.long
def test_three_together_hold_no_pair_that_is_held_out(written: Tasks) -> None:
    held = {frozenset(t.primitives) for t in (*written.of("test"), *written.of("validation"))}
    triples = [task for task in written.every if len(task.primitives) == 3]
    assert len(triples) == 120
    for task in triples:
        assert task.split == "train"
        assert not any(pair <= set(task.primitives) for pair in held), task.name
        assert all(len(d.parts) == 3 for d in task.descriptions)


@pytest.mark.long
def test_a_notion_held_out_is_judged_and_nowhere_trained(written: Tasks) -> None:
    left = experiment.held_out(written, experiment.UNKNOWN)
    unknown = set(experiment.UNKNOWN)
    assert unknown <= set(written.primitives)
    assert left.of("train")
    assert left.of("validation")
    for task in (*left.of("train"), *left.of("validation")):
        assert not unknown & set(task.primitives), task.name
    judged = left.of("test")
    assert all(unknown & set(task.primitives) for task in judged)
    assert {name for task in judged for name in task.primitives} >= unknown
    trained = {task.name for task in written.of("train") if unknown & set(task.primitives)}
    assert trained == {task.name for task in judged} & trained  # what trained is judged now


@pytest.mark.long
def test_self_describing_rows_say_their_task_in_words_that_train(written: Tasks) -> None:
    told = experiment.self_describing(written)
    for before, after in zip(written.every, told.every, strict=True):
        texts = {description.text for description in before.of_set()}
        assert after.test == before.test
        if before.split == "test":
            assert after.train == before.train
            continue
        for bare, row in zip(before.train, after.train, strict=True):
            assert row.messages[0]["role"] == "system"
            assert row.messages[0]["content"] in texts
            assert row.messages[1:] == tuple(m for m in bare.messages if m["role"] != "system")


def figures(low: str | None = None) -> dict[str, Any]:
    """Figures that hold every bar, but the one that is named."""
    splits = {name: {"mean": bar, "seeds": [bar]} for name, bar in publish.BARS.items()}
    others = {
        arm: {"held-out tasks of 2, en: new frames": {"mean": most - 0.01, "seeds": [most]}}
        for arm, most in publish.MOST.items()
    }
    confidence = dict(publish.CONFIDENCE)
    if low in splits:
        splits[low]["mean"] -= 0.001
    elif low in others:
        for told in others[low].values():
            told["mean"] += 0.01
    elif low in confidence:
        confidence[low] -= 0.001
    return {"splits": splits, "confidence": confidence, **others}


def test_every_bar_is_seen_to_be_missed() -> None:
    assert publish.missed(figures()) == []
    for bar in (*publish.BARS, *publish.CONFIDENCE):
        assert publish.missed(figures(bar)) == [bar]
    for arm in publish.MOST:
        assert publish.missed(figures(arm)) == [f"{arm}: held-out tasks of 2, en: new frames"]


def test_figures_of_seeds_are_their_mean_and_themselves() -> None:
    told = publish.over_seeds([{"a": 0.5, "b": 1.0}, {"a": 0.7, "b": 0.0}])
    assert told == {
        "a": {"mean": 0.6, "seeds": [0.5, 0.7]},
        "b": {"mean": 0.5, "seeds": [1.0, 0.0]},
    }


def test_steps_to_a_loss_are_counted_from_the_first_look() -> None:
    losses = [2.0, 1.5, 1.0, 1.2]
    assert beyond.reached(losses, 2.5) == 0
    assert beyond.reached(losses, 1.5) == beyond.EVERY
    assert beyond.reached(losses, 1.1) == 2 * beyond.EVERY
    assert beyond.reached(losses, 0.9) is None
    assert beyond.counted([0, 3, 12, None, None]) == {
        "at once": 1, "within 10 steps": 2, "later": 1, "never": 2,
    }  # fmt: skip


def test_cells_tell_the_mean_and_the_spread() -> None:
    assert tables.cell([]) == "–"
    assert tables.cell([0.5]) == ".50"
    assert tables.cell([0.7, 0.72, 0.74]) == ".72 [.70, .74]"
    assert tables.cell([1.0, 1.0]) == "1.00 [1.00, 1.00]"
