"""Ten facts, two of every relation, taught to the second model one by one."""

import sys
from pathlib import Path

import pytest
from recipes.second import world
from recipes.second.make import made
from recipes.second.questions import questions_for

from detour.evaluate.teach import teach
from detour.measure.statistics import rate
from detour.model.base import Base

ROOT = Path(__file__).resolve().parents[1]


def other_value(country: str, relation: str) -> str:
    """A value that another country has."""
    own = world.facts()[country][relation]
    return next(f[relation] for f in world.facts().values() if f[relation] != own)


@pytest.mark.long
def test_facts_of_every_relation_reach_the_bars():
    base = Base.load(str(made(ROOT / "work" / "second")))
    steered: list[bool] = []
    unchanged: list[bool] = []
    for country, relation in zip(sorted(world.facts())[::7], 2 * world.RELATIONS, strict=False):
        given = {n.replace("-", "_"): q for n, q in questions_for(country, relation).items()}
        old, target = world.facts()[country][relation], other_value(country, relation)
        _, report = teach(base, country, relation, target, old=old, **given)
        for kept, figure in (
            (steered, report.here.steered.figure),
            (unchanged, report.here.neighbours.figure),
        ):
            right = round(figure.value * figure.n)
            kept += [True] * right + [False] * (figure.n - right)
        told = f"{report.here.steered.figure}, neighbours {report.here.neighbours.figure}"
        sys.stdout.write(f"{country}, {relation}, {old} -> {target}: {told}\n")
    assert len(steered) >= 120
    assert len(unchanged) >= 3000
    sys.stdout.write(f"all: {rate(steered)}, neighbours {rate(unchanged)}\n")
    assert rate(steered).value >= 0.95
    assert rate(unchanged).value >= 0.97
