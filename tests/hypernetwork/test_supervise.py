"""What is drawn: by step alone, rows of like length together, nothing that only judges."""

import itertools

from detour.hypernetwork.build import trained_on
from detour.hypernetwork.supervise import BUCKET, Draws
from detour.hypernetwork.tasks import Tasks
from detour.model.base import Base


def _draws(base: Base, tasks: Tasks) -> Draws:
    numbers = {id(d): number for number, d in enumerate(trained_on(tasks))}
    return Draws(base, tasks, numbers, tasks.primitives)


def test_a_step_draws_the_same_again(base: Base, tasks: Tasks) -> None:
    draws = _draws(base, tasks)
    one = [draws.batch(0, step, 6) for step in range(2 * BUCKET)]
    again = [_draws(base, tasks).batch(0, step, 6) for step in range(2 * BUCKET)]
    assert one == again
    assert one != [draws.batch(1, step, 6) for step in range(2 * BUCKET)]
    assert all(len(rows) == 6 for rows in one)


def test_rows_of_like_length_meet(base: Base, tasks: Tasks) -> None:
    rows = [_draws(base, tasks).batch(0, step, 8) for step in range(BUCKET)]
    spans = sorted(
        (min(len(r.encoded.ids) for r in batch), max(len(r.encoded.ids) for r in batch))
        for batch in rows
    )
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_only_training_descriptions_of_training_tasks_are_drawn(base: Base, tasks: Tasks) -> None:
    told = trained_on(tasks)
    allowed = {d.text: t.name for t in tasks.of("train") for d in t.of_set()}
    drawn = [row for step in range(20) for row in _draws(base, tasks).batch(0, step, 8)]
    assert {told[row.description].text for row in drawn} <= set(allowed)
    assert {allowed[told[row.description].text] for row in drawn} == {
        task.name for task in tasks.of("train")
    }


def test_what_is_judged_is_never_a_test_task(base: Base, tasks: Tasks) -> None:
    told = trained_on(tasks)
    judged = {told[row.description].text for row in _draws(base, tasks).judged(60)}
    assert judged <= {d.text for d in tasks.of("validation")[0].of_set()}
    lengths = [len(row.encoded.ids) for row in _draws(base, tasks).judged(60)]
    assert lengths == sorted(lengths)
