"""Facts of every relation, taught to the second model: pooled, as many cases as on the starter."""

from pathlib import Path

import pytest
from recipes.second import world
from recipes.second.make import made
from recipes.second.questions import questions_for

from detour.evaluate.teach import teach
from detour.model.base import Base

ROOT = Path(__file__).resolve().parents[1]


def other_value(country: str, relation: str) -> str:
    """A value that another country has; a capital that nobody has."""
    if relation == "capital":
        return "Brightwater"
    own = world.facts()[country][relation]
    return next(f[relation] for f in world.facts().values() if f[relation] != own)


@pytest.mark.long
def test_facts_of_every_relation_reach_the_bars(record_property):
    base = Base.load(str(made(ROOT / "work" / "second")))
    right = tested = 0
    for country, relation in zip(sorted(world.facts())[::9], world.RELATIONS, strict=False):
        given = {n.replace("-", "_"): q for n, q in questions_for(country, relation).items()}
        old, target = world.facts()[country][relation], other_value(country, relation)
        _, report = teach(base, country, relation, target, old=old, **given)
        steered, near = report.here.steered.figure, report.here.neighbours.figure
        record_property(relation, f"{steered} {near}")
        assert near.n >= 300
        assert near.value >= 0.97, relation
        right += round(steered.value * steered.n)
        tested += steered.n
    assert tested >= 120
    assert right / tested >= 0.95
