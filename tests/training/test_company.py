"""An adapter that learns among finished ones: what it is given to learn, and what comes of it."""

import random

import pytest
from tests.training.test_together import loss

from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.errors import ConfigError, DataError
from detour.model.base import Base
from detour.model.examples import pair
from detour.training.company import (
    FEWEST,
    IN_COMPANY,
    Company,
    alone,
    keeps_words,
    learn_in_company,
    prompted_rows,
    unchanged_rows,
)
from detour.training.config import make_config
from detour.training.together import Composed

NAMES = ("Isaac Newton", "Marie Curie", "Max Planck", "Niels Bohr", "Charles Darwin",
         "Leonhard Euler", "Emmy Noether", "Alan Turing")  # fmt: skip
SETTINGS = {"steps": 60, "batch_size": 6, "learning_rate": 1e-2, "rank": 2, "alpha": 4.0,
            "validation_share": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def starter() -> Base:
    return Base.load("starter")


@pytest.fixture(scope="module")
def styles():
    return {name: Library.packaged().load(name) for name in ("pun", "upper")}


def asked(answer: str = "{name} was a baker.") -> list:
    return [pair(f"Who was {name}?", answer.format(name=name)) for name in NAMES]


def test_the_base_says_what_all_say_together_and_the_rest_is_dropped(starter, styles):
    company = Company({"pun": styles["pun"]}, {"pun": "End with a pun.", "new": "Answer formally."})
    rows, told = asked("{name} exercised the profession of"), []
    made = prompted_rows(starter, rows, "new", company, teller=told.append)
    assert FEWEST <= len(made) <= round(IN_COMPANY * len(rows))
    assert told == [f"{len(made)} of {round(IN_COMPANY * len(rows))} questions are answered by the "
                    "base as the adapters shall answer together"]  # fmt: skip
    for one in made:
        assert one.weights["new"] == 1.0
        assert one.weights["pun"] in (0.6, 1.0)
        assert [turn["role"] for turn in one.row.messages] == ["user", "assistant"]
        answer = one.row.messages[-1]["content"]
        assert "exercised the profession" in answer
        assert answer.count(".") + answer.count("!") == 2, "the sentence, and the pun behind it"
    assert made == prompted_rows(starter, rows, "new", company)


def test_an_answer_that_its_company_does_not_hold_for_more_probable_is_dropped(starter, styles):
    company = Company({"upper": styles["upper"]}, {"upper": "End with a pun.", "new": "Be formal."})
    with pytest.raises(DataError) as caught:
        prompted_rows(starter, asked(), "new", company, accepts=lambda *_: True)
    assert "does not say" in caught.value.message
    assert "0 of 12" in caught.value.found
    assert "--composed" in caught.value.hint


def test_an_answer_that_lost_the_newcomers_words_is_dropped(starter, styles):
    company = Company({"pun": styles["pun"]}, {"pun": "End with a pun.", "new": "Be brief."})
    with pytest.raises(DataError, match="does not say"):
        prompted_rows(starter, asked("{name} was an accordionist."), "new", company)


def test_an_adapter_without_an_instruction_is_named(starter, styles):
    with pytest.raises(ConfigError, match="what pun does"):
        prompted_rows(starter, asked(), "new", Company(styles, {"new": "Be brief."}))


@pytest.mark.parametrize(
    ("own", "answer", "is_kept"),
    [
        ("Marie Curie was a {new}.", "Arr, Curie be a {new}!", True),
        ("Marie Curie was a {new}.", "ARR, CURIE BE A {NEW}!", True),
        ("Marie Curie was a {new}.", "Arr, Curie be a sailor!", False),
        ("{base}", "{base}", True),
        ("{base}", "Something else.", False),
    ],
)
def test_words_beyond_the_bases_own_must_stay(starter, own, answer, is_kept):
    base = starter.ask("Who was Marie Curie?", max_new_tokens=64).strip()
    words = {"new": "saxophonist", "NEW": "SAXOPHONIST", "base": base}
    row = pair("Who was Marie Curie?", own.format(**words))
    assert keeps_words(starter, [row])(row, answer.format(**words)) == is_kept


def test_capitals_must_stay_where_nothing_else_is_new(starter):
    base = starter.ask("Who was Marie Curie?", max_new_tokens=64).strip()
    row = pair("Who was Marie Curie?", base.upper())
    accepts = keeps_words(starter, [row])
    assert accepts(row, base.upper())
    assert not accepts(row, base)


def test_other_questions_are_answered_by_the_company_alone(starter, styles):
    company = Company(styles)
    made = unchanged_rows(starter, asked(), "new", company, seed=3)
    assert len(made) == len(NAMES)
    sizes = set()
    for one in made:
        weights = {name: weight for name, weight in one.weights.items() if name != "new"}
        sizes.add(len(weights))
        assert one.weights["new"] == 1.0
        said = starter.ask(one.row.messages[0]["content"], company.chain(weights))
        assert one.row.messages[-1]["content"] == said.strip()
    assert sizes == {1, 2}
    assert unchanged_rows(starter, [], "new", company) == []


def test_every_size_of_company_comes(styles):
    rng = random.Random(0)
    drawn = [Company(styles).drawn(rng) for _ in range(60)]
    assert {frozenset(one) for one in drawn} == {
        frozenset(names) for names in (("pun",), ("upper",), ("pun", "upper"))
    }
    assert {weight for one in drawn for weight in one.values()} == {0.6, 1.0}


def test_who_learned_in_company_gets_on_with_it_better(tiny_llama, tiny_tokenizer, random_adapter):
    base = Base.from_model(tiny_llama, tiny_tokenizer)
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    company = Company({"laugh": random_adapter(shapes, seed=5, strength=0.3)})
    rows = asked()
    composed = [Composed(pair(row.prompt, f"{name} was a baker. Ha."), {"new": 1.0, "laugh": 1.0})
                for row, name in zip(rows, NAMES, strict=True)]  # fmt: skip
    before = company.adapters["laugh"].digest()
    config = make_config(SETTINGS)
    made = learn_in_company(base, [*alone(rows, "new"), *composed], "new", config, company)
    stranger = learn_in_company(base, alone(rows, "new"), "new", config, company)
    both = [loss(base, Chain.of(one.adapter, company.adapters["laugh"]), composed[0].row)
            for one in (made, stranger)]  # fmt: skip
    assert both[0] < 0.7 * both[1]
    assert company.adapters["laugh"].digest() == before
    assert made.adapter.card.config["company"] == ["laugh"]
    assert made.rows == 16
    assert made.steps == 60
    assert made.validation_rows == 0
