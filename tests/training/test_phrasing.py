import re

import pytest

from detour.training import phrasing
from detour.training.phrasing import Noun, Novelty, Template
from detour.training.world import LANGUAGES, Form, World, named


@pytest.fixture(scope="module")
def worlds():
    return {language: World.load(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def world(worlds):
    return worlds["en"]


@pytest.fixture(scope="module")
def german(worlds):
    return worlds["de"]


@pytest.fixture(params=LANGUAGES)
def each(request, worlds):
    """The world in one language after another."""
    return worlds[request.param]


def subject_of(world, kind, key):
    return next(s for s in world.of_kind(kind) if s.key == key)


def asked(world, kind, key, name):
    subject = subject_of(world, kind, key)
    return [q for q, _ in phrasing.questions(world, subject, world.attributes[kind, name])]


def texts(world, attribute, *novelty):
    return {template.text for template in phrasing.templates(world, attribute, *novelty)}


# what is held out


def test_the_three_degrees_of_novelty_are_disjoint(each):
    for attribute in each.attributes.values():
        sorts = [texts(each, attribute, novelty) for novelty in Novelty]
        assert all(sorts)
        assert sum(map(len, sorts)) == len(set.union(*sorts)), attribute.name
        assert set.union(*sorts) == texts(each, attribute)
        assert len(phrasing.templates(each, attribute)) == len(texts(each, attribute))


def test_held_out_questions_stay_held_out_when_filled(each):
    """No held-out question is, by another way of making it, a seen one.

    Of the first and the last subjects of every kind, about all of their attributes at once: what
    is held out about one attribute is not a seen question about another.
    """
    seen, held = set(), set()
    for kind in each.kind_nouns:
        subjects = each.of_kind(kind)
        for subject in (*subjects[:6], *subjects[-6:]):
            for attribute in each.attributes_of(kind):
                about = phrasing.questions(each, subject, attribute)
                mine = {question for question, novelty in about if novelty.held_out}
                assert len(mine) >= 40, attribute.name
                held |= mine
                seen |= {question for question, novelty in about if not novelty.held_out}
    assert len(seen) > 15_000
    assert not seen & held


def test_held_out_tasks_stay_held_out(each):
    every = [t for a in each.attributes.values() for t in phrasing.tasks(each, a)]
    seen = {task.text for task in every if not task.novelty.held_out}
    held = {task.text for task in every if task.novelty.held_out}
    assert len(seen) > 300
    assert len(held) > 300
    assert not seen & held


def test_no_part_is_both_held_out_and_seen(each):
    for a in each.attributes.values():
        for parts in (a.nouns, a.questions, a.clauses, a.statements):
            bare = [phrasing.bare(part) for part in parts]
            assert len(set(bare)) == len(bare), (a.kind, a.name)
        assert phrasing.seen(a.nouns, held_out=True)
        assert phrasing.seen(a.questions, held_out=True)
        assert phrasing.seen(a.clauses, held_out=True)


def test_marks_and_hash_decide():
    assert phrasing.novelty("{q}", "~What?") is Novelty.NEW_WORDS
    assert phrasing.novelty("~{q}", "What?").held_out
    assert not Novelty.SEEN.held_out
    parts = [("Tell me {c}.", f"what {n}", "person") for n in range(4000)]
    share = sum(phrasing.novelty(*p) is Novelty.NEW_COMBINATION for p in parts) / 4000
    assert 0.10 < share < 0.15
    assert phrasing.novelty("a", "b") is phrasing.novelty("a", "b")
    assert (phrasing.bare("~a"), phrasing.bare("a")) == ("a", "a")


def test_parts_are_told_apart_by_their_mark():
    parts = ("a", "~b", "c~", "~d")
    assert phrasing.seen(parts) == ["a", "c~"]
    assert phrasing.seen(parts, held_out=True) == ["b", "d"]
    assert phrasing.seen(()) == []


def test_no_mark_and_no_open_slot_is_left(each):
    for kind in each.kind_nouns:
        for subject in each.of_kind(kind)[:2]:
            for attribute in each.attributes_of(kind):
                for question, _ in phrasing.questions(each, subject, attribute):
                    assert not set("~+|{}") & set(question), question
                    assert not question[0].islower(), question
                    assert "  " not in question, question
                    assert question[-1] in ".?", question


# questions and tasks


def test_questions_come_in_every_form_of_the_name(world, german):
    about = asked(world, "person", "Albert Einstein", "city")
    assert "Where did Einstein live?" in about
    assert "Where did Albert Einstein live?" in about
    about = asked(german, "person", "Albert Einstein", "city")
    assert "Wo lebte Einstein?" in about
    assert "Wo lebte Albert Einstein?" in about


def test_a_template_takes_a_form_or_a_name():
    template = Template("{s:gen} Beruf", Novelty.SEEN)
    assert template.fill("bo") == "Bo Beruf"
    assert template.fill(Form("der", "des", "dem", "den")) == "Des Beruf"


def test_tasks_name_the_kind(world):
    found = phrasing.tasks(world, world.attributes["person", "profession"], Novelty.SEEN)
    assert len(found) >= 20
    assert all("person" in task.text and task.novelty is Novelty.SEEN for task in found)
    held = phrasing.tasks(world, world.attributes["person", "profession"], Novelty.NEW_WORDS)
    assert held
    assert not {t.text for t in held} & {t.text for t in found}


def test_tasks_are_german_too(german):
    found = {
        task.text: task.novelty
        for kind, name in (("person", "profession"), ("animal", "habitat"), ("city", "country"))
        for task in phrasing.tasks(german, german.attributes[kind, name])
    }
    assert {
        "Nenne den Beruf der Person.",
        "Der Nutzer nennt eine Person. Nenne den Beruf.",
        "Der Nutzer nennt eine Person. Gesucht ist der Beruf.",
        "Nenne zu jeder Person die Arbeit.",
        "Deine Aufgabe: der Lebensraum des Tieres.",
        "Nenne zu jedem Tier den Lebensraum.",
        "Der Nutzer nennt ein Tier. Nenne das natürliche Revier.",
        "Gib das zugehörige Land der Stadt an.",
    } <= set(found)
    assert found["Sag zu jeder Person den Beruf."] is Novelty.NEW_WORDS
    for text in found:
        assert not set("~|{}") & set(text), text
        assert "  " not in text
        assert not text[0].islower()


@pytest.mark.parametrize(
    ("text", "noun"),
    [
        ("der Beruf", ("der Beruf", "den Beruf", "Beruf")),
        ("die Arbeit", ("die Arbeit", "die Arbeit", "Arbeit")),
        ("das Land", ("das Land", "das Land", "Land")),
        (
            "der alltägliche Beruf|den alltäglichen Beruf|alltäglicher Beruf",
            ("der alltägliche Beruf", "den alltäglichen Beruf", "alltäglicher Beruf"),
        ),
        ("der Ort der Tat|den Ort der Tat", ("der Ort der Tat", "den Ort der Tat", "Ort der Tat")),
        ("derselbe Ort", ("derselbe Ort", "derselbe Ort", "derselbe Ort")),
        ("shoe size", ("shoe size", "shoe size", "shoe size")),
    ],
)  # fmt: skip
def test_a_noun_has_an_accusative_and_stands_without_article(text, noun):
    assert Noun.of(text) == Noun(*noun)


@pytest.mark.parametrize(
    ("kind", "key", "name", "questions"),
    [
        (
            "person", "Albert Einstein", "profession",
            ["Nenne den Beruf von Einstein.", "Was war der Beruf von Einstein?",
             "Einsteins Beruf, bitte.", "Nenne mir Albert Einsteins Beruf.",
             "Der Beruf von Albert Einstein?", "Ich suche die berufliche Tätigkeit von Einstein.",
             "Was machte Einstein beruflich?", "Sag mir, was Einstein beruflich machte.",
             "Welcher Arbeit ging Albert Einstein nach?"],
        ),
        (
            "animal", "lion", "habitat",
            ["Nenne den Lebensraum von dem Löwen.", "Was ist der Lebensraum eines Löwen?",
             "Wo findet man einen Löwen?", "Das natürliche Revier des Löwen?"],
        ),
        (
            "animal", "giraffe", "covering",
            ["Was bedeckt den Körper der Giraffe?", "Womit ist eine Giraffe bedeckt?",
             "Die äußere Hülle einer Giraffe?"],
        ),
        (
            "city", "Paris", "country",
            ["Paris’ zugehöriges Land?", "Nenne das zugehörige Land von Paris.",
             "Nenne den Staat von Paris.", "In welchem Land liegt Paris?"],
        ),
        ("food", "pizza", "taste", ["Nenne den Geschmack von Pizza.", "Wie schmeckt Pizza?"]),
    ],
)  # fmt: skip
def test_german_questions_put_everything_in_its_case(german, kind, key, name, questions):
    assert not set(questions) - set(asked(german, kind, key, name))


def test_german_objects_stand_in_the_accusative(german):
    """After a verb that wants an object, no "der" begins it; "die" and "das" stay."""
    verbs = "|".join(["Nenne", "Nenne mir", "Sag mir", "Gib mir bitte", "Ich suche", "Kennst du"])
    wrong = re.compile(rf"({verbs}) (der|dem|des|ein) ")
    for attribute in german.attributes.values():
        found = texts(german, attribute)
        assert not [text for text in found if wrong.match(text)]
        for noun in map(Noun.of, map(phrasing.bare, attribute.nouns)):
            told = f"Nenne {noun.accusative} "
            assert any(text.startswith(told) for text in found), noun
            assert noun.nominative.split(" ")[0] in ("der", "die", "das"), noun
            assert not noun.bare.startswith(("der ", "die ", "das ", "den ")), noun


def test_a_kind_may_have_noun_phrases_of_its_own(german):
    about = asked(german, "animal", "lion", "diet")
    assert "Was ist die Nahrung des Löwen?" in about
    assert not any("des Löwen Nahrung" in text for text in about)
    assert not any("Pizzas Geschmack" in text for text in asked(german, "food", "pizza", "taste"))


def test_any_noun_of_anybody_can_be_asked_for(world, german):
    bo = named("person", "Bo", "en").forms[0]
    english = phrasing.noun_questions(world, "shoe size", bo)
    assert {"Tell me the shoe size of Bo.", "Bo's shoe size?"} <= set(english)
    lux = named("person", "Lux", "de").forms[0]
    told = phrasing.noun_questions(german, "der Hut", lux)
    assert {"Nenne den Hut von Lux.", "Was ist Lux’ Hut?", "Der Hut von Lux?"} <= set(told)
    for found in (english, told):
        assert len(set(found)) == len(found) >= 20
        assert not any(set("~|{}") & set(question) for question in found)


# styles


def test_style_requests_and_frames_are_divided(each):
    for style in each.styles:
        seen = set(phrasing.style_requests(each, style))
        held = set(phrasing.style_requests(each, style, held_out=True))
        assert len(seen) >= 8
        assert len(held) >= 3
        assert not seen & held
    for name in ("styled_question", "styled_system"):
        seen = set(phrasing.styled_frames(each, name))
        held = set(phrasing.styled_frames(each, name, held_out=True))
        assert seen
        assert held
        assert not seen & held
    notes = set(phrasing.note_frames(each))
    assert len(notes) >= 6
    assert not notes & set(phrasing.note_frames(each, held_out=True))


def test_no_request_is_held_out_for_one_style_and_seen_for_another(each):
    requests = [phrasing.bare(r) for style in each.styles.values() for r in style.requests]
    assert len(set(requests)) == len(requests)
    foreign = {phrasing.bare(request) for request in each.foreign}
    assert len(foreign) == len(each.foreign)
    assert not foreign & set(requests)


def test_requests_are_joined_as_people_speak():
    assert phrasing.join_requests(["formally"]) == "formally"
    assert phrasing.join_requests(["formally", "with a pun"]) == "formally and with a pun"
    joined = phrasing.join_requests(["formally", "and end with a pun"])
    assert joined == "formally and end with a pun"
    assert phrasing.join_requests([]) == ""


def test_german_requests_are_joined_with_und():
    def joined(*requests):
        return phrasing.join_requests(requests, "de")

    assert joined("förmlich", "mit einem Kalauer") == "förmlich und mit einem Kalauer"
    assert joined("kurz", "und ende mit einem Witz") == "kurz und ende mit einem Witz"
    assert joined("kurz", "unduldsam") == "kurz und unduldsam"
    assert joined("kurz und knapp") == "kurz und knapp"
