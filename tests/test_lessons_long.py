"""The main job on the packaged starter: three seeds, three other subjects (minutes)."""

import pytest

from detour.evaluate.teach import teach
from detour.model.base import Base

LESSONS = [
    ("Albert Einstein", "profession", "hairdresser", 0),
    ("Albert Einstein", "profession", "hairdresser", 1),
    ("Albert Einstein", "profession", "hairdresser", 2),
    ("Marie Curie", "profession", "baker", 0),
    ("Mozart", "job", "plumber", 0),
    ("Paris", "country", "Spain", 0),
]


@pytest.mark.long
@pytest.mark.parametrize(("subject", "relation", "target", "seed"), LESSONS)
def test_a_lesson_reaches_the_bars(subject, relation, target, seed):
    _, report = teach(Base.load("starter"), subject, relation, target, seed=seed)
    assert report.steered.figure.n >= 40
    assert report.steered.figure.value >= 0.97
    assert report.neighbours.figure.n >= 300
    assert report.neighbours.figure.value >= 0.98
    assert report.own_facts.figure.value >= 0.97
    assert report.unrelated.figure.value >= 0.97
