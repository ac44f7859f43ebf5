"""One tiny base taught once: what every test of the report looks at."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from detour.adapter.adapter import Adapter
from detour.evaluate import steer_report
from detour.evaluate.steer_report import SteerReport
from detour.evaluate.teach import teach
from detour.model.base import Base
from detour.training import own_fact, replay
from detour.training.config import make_config
from detour.training.world import World

NEAR = tuple(
    f"Shoe size of {name}?"
    for name in ("Al", "Cy", "Di", "Ed", "Flo", "Gus", "Isaac Newton", "Marie Curie")
)
FAR = tuple(f"What is {n}?" for n in range(8))
CONFIG = make_config({"steps": 120, "batch_size": 12, "learning_rate": 1e-2, "rank": 4, "alpha": 8})


@dataclass(frozen=True)
class Taught:
    base: Base
    adapter: Adapter
    report: SteerReport
    notes: list[str]


@pytest.fixture(scope="session")
def world() -> World:
    return World.load()


@pytest.fixture(scope="session")
def starter() -> Base:
    return Base.load("starter")


@contextmanager
def shortened():
    """A random model never ends its answer; nobody waits for all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steer_report, "LONGEST", 16)
        patch.setattr(steer_report, "PROMPTED", 2)
        patch.setattr(steer_report, "DOSED", 4)
        patch.setattr(replay, "LONGEST_ANSWER", 6)
        patch.setattr(own_fact, "SAMPLES", 3)
        yield


@pytest.fixture(autouse=True)
def short_answers():
    with shortened():
        yield


@pytest.fixture(scope="session")
def roomy_base(make_model, tiny_tokenizer) -> Base:
    model = make_model("llama", max_position_embeddings=1024, num_hidden_layers=2)
    return Base.from_model(model, tiny_tokenizer, name="tiny")


@pytest.fixture(scope="session")
def taught(roomy_base, world, tmp_path_factory) -> Taught:
    notes: list[str] = []
    with shortened():
        adapter, report = teach(
            roomy_base, "Bo", "shoe size", "99", world=world, neighbours=NEAR, unrelated=FAR,
            third="12", old="42", answer="Bo has 99.", config=CONFIG, teller=notes.append, seed=1,
            output=tmp_path_factory.mktemp("taught") / "bo",
        )  # fmt: skip
    return Taught(roomy_base, adapter, report, notes)
