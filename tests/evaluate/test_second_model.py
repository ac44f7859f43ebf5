"""Teaching, training and chains on a model that is not the starter.

Another architecture, tokenizer, template and world, made by a short recipe.
"""

from pathlib import Path

import pytest
import torch
from recipes.second import world
from recipes.second.make import made
from recipes.second.questions import questions_for

from detour.adapter.adapter import Adapter
from detour.evaluate.teach import teach
from detour.measure.metrics import mentions
from detour.model.base import Base
from detour.model.examples import pair
from detour.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
STEERED, NEAR = 0.95, 0.97
pytestmark = pytest.mark.long  # on a new machine the model is made first, in four minutes


@pytest.fixture(scope="module")
def base() -> Base:
    """Made once; the same recipe finds it again in the ignored folder."""
    threads = torch.get_num_threads()
    folder = made(ROOT / "work" / "second")
    torch.set_num_threads(threads)
    return Base.load(str(folder))


@pytest.fixture(scope="module")
def country() -> str:
    return sorted(world.facts())[0]


def test_it_knows_its_world(base):
    asked = [
        (question, world.answer(name, relation))
        for name in sorted(world.facts())[::3]
        for relation in world.RELATIONS
        for question in world.questions(name, relation)[::9]
    ]
    answers = base.ask_many([question for question, _ in asked])
    right = sum(given == wanted for given, (_, wanted) in zip(answers, asked, strict=True))
    assert right / len(asked) > 0.97


@pytest.fixture(scope="module")
def taught(base, country, tmp_path_factory):
    """One fact, by the files that the recipe writes for `detour teach`."""
    given = {n.replace("-", "_"): q for n, q in questions_for(country, "bird").items()}
    old = world.facts()[country]["bird"]
    target = next(f"the {bird}" for bird in ("owl", "swan") if bird not in old)
    folder = tmp_path_factory.mktemp("second") / "bird"
    return teach(base, country, "bird", target, old=old, output=folder, **given)


def test_a_fact_is_taught_and_its_neighbours_stay(taught, country):
    _, report = taught
    steered, near = report.here.steered.figure, report.here.neighbours.figure
    assert steered.n >= 12
    assert near.n >= 300
    assert steered.value >= STEERED
    assert near.value >= NEAR
    assert report.base_rate.value == 0
    assert report.loader.removed_bit_equal
    assert mentions(report.here.steered_answer, country)


def test_every_question_of_the_test_is_about_its_own_world(taught):
    _, report = taught
    failures = [f for _, section in report.here.sections() for f in section.failures]
    names = world.facts()
    assert all(any(name in f.question for name in names) for f in failures)
    assert report.here.own_facts.figure.n > 90
    assert report.here.unrelated.figure.n > 100


def test_two_changes_chain(base, taught, country):
    """A second adapter, trained on plain rows, changes another relation; together both act."""
    adapter, report = taught
    other = sorted(world.facts())[1]
    asked = world.questions(other, "tongue")
    known = world.facts()[other]["tongue"]
    target = next(name for name in ("Velic", "Korric") if name != known)
    rows = [pair(q, f"The tongue of {other} is {target}.") for q in asked[::2]]
    second = train(base, rows)
    chain = adapter + second
    for questions, value in (
        (questions_for(country, "bird")["paraphrases"], report.target),
        (asked[1::2], target),
    ):
        said = base.ask_many(questions, chain)
        assert sum(mentions(answer, value) for answer in said) >= 0.8 * len(said)
    flat = chain.flatten("both")
    assert flat.rank == adapter.rank + second.rank
    assert base.ask_many(asked, flat) == base.ask_many(asked, chain)


def test_the_starters_adapters_are_refused_there(base):
    from detour.adapter.library import Library
    from detour.errors import WrongBase

    formal: Adapter = Library.packaged().load("formal")
    with pytest.raises(WrongBase):
        base.bind(formal)
