"""A made-up world for the second model: countries that nobody has heard of, and what they have.

Drawn from a fixed seed, so that every run of the recipe tells of the same world. Knows text only.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product

SEED = 11
COUNTRIES = 72
_SYLLABLES = {
    "first": "Vel Dra Os Kir Mon Tal Bre Sil Nor Qua Fen Hul Zar Ul Pem Gor Lys Wen",
    "middle": "mo ra ti lo ve ka ni su de po",
    "last": "ria land dor via stan mar nia thal",
}

VALUES = {
    "bird": "heron owl eagle crane falcon stork robin swan raven finch lark pelican magpie wren",
    "export": "copper wool tea salt timber honey glass amber pepper silk paper cork cotton tin",
    "ruler": "queen king council duke emperor mayor general bishop senate chief prince judge",
    "tongue": "Ostrin Velic Dramish Korric Talese Brenic Silvan Norish Quarin Fennic Huldic Zarin",
}
_ARTICLES = {"bird": "the ", "ruler": "a "}
RELATIONS = ("capital", *VALUES)

QUESTIONS = {  # beside the general ones around the noun
    "capital": (
        "Which town governs {s}?",
        "Where does the government of {s} sit?",
        "Where would you find the parliament of {s}?",
        "Which town is the seat of power in {s}?",
        "From which town is {s} run?",
        "Which town leads {s}?",
    ),
    "bird": (
        "Which bird stands for {s}?",
        "What bird is on the flag of {s}?",
        "Which bird do people in {s} honour?",
        "What flies on the coat of arms of {s}?",
        "Which bird means {s} to everybody?",
        "What bird would you see on a coin of {s}?",
    ),
    "export": (
        "What does {s} sell abroad?",
        "Which goods leave the ports of {s}?",
        "What do traders buy in {s}?",
        "What is {s} rich in?",
        "Which goods made {s} wealthy?",
        "What would a ship from {s} carry?",
    ),
    "ruler": (
        "Who governs {s}?",
        "Who is at the head of {s}?",
        "Who makes the laws in {s}?",
        "Who decides in {s}?",
        "Who has the last word in {s}?",
        "Who do the people of {s} obey?",
    ),
    "tongue": (
        "What do people speak in {s}?",
        "Which words would you hear in {s}?",
        "What do children learn to speak in {s}?",
        "In what are the books of {s} written?",
        "How do people talk in {s}?",
        "What should you learn before you visit {s}?",
    ),
}


@cache
def facts() -> dict[str, dict[str, str]]:
    """Country to relation to value; every capital is another one."""
    rng = random.Random(SEED)
    names = ["".join(parts) for parts in product(*(s.split() for s in _SYLLABLES.values()))]
    rng.shuffle(names)
    countries, towns = names[:COUNTRIES], names[COUNTRIES : 2 * COUNTRIES]
    return {
        country: {"capital": town, **{r: _value(r, rng) for r in VALUES}}
        for country, town in zip(countries, towns, strict=True)
    }


def _value(relation: str, rng: random.Random) -> str:
    return _ARTICLES.get(relation, "") + rng.choice(VALUES[relation].split())


def answer(country: str, relation: str) -> str:
    """The sentence that tells a fact."""
    return f"The {relation} of {country} is {facts()[country][relation]}."


def questions(country: str, relation: str) -> list[str]:
    """Every phrasing that the model reads: the general ones around the noun, and its own."""
    from detour.training.fact import relation_questions
    from detour.training.world import World

    general = relation_questions(World.load(), country, relation)
    return [*general, *(question.format(s=country) for question in QUESTIONS[relation])]
