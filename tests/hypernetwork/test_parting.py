"""Phrases that a tagger ran together or overlooked, negations, and descriptions that are mixed."""

import random
from dataclasses import replace

import pytest
from tests.hypernetwork.tiny_tasks import WordEmbedder

from detour.hypernetwork.known import Known
from detour.hypernetwork.negation import negations
from detour.hypernetwork.parting import mended, overlooked, parted
from detour.hypernetwork.tagging import MIXED, Phrase, mixed
from detour.hypernetwork.tasks import Description, Tasks


@pytest.fixture
def known(tasks: Tasks, words: WordEmbedder) -> Known:
    return Known.of(words, tasks.of("train"), "spans")


def phrases(*texts: str) -> list[Phrase]:
    return [Phrase(text, 0.9) for text in texts]


def test_two_notions_in_one_phrase_are_parted(known: Known, words: WordEmbedder) -> None:
    (found,) = parted(words, known, phrases("the town and in capitals"))
    assert [phrase.text for phrase in found] == ["the town", "in capitals"]
    (three,) = parted(words, known, phrases("the town, in capitals, the craft"))
    assert [phrase.text for phrase in three] == ["the town", "in capitals", "the craft"]


def test_what_names_one_thing_stays_whole(known: Known, words: WordEmbedder) -> None:
    whole = phrases("the town", "in upper case", "over hill and dale", "whispering")
    assert parted(words, known, whole) == [[phrase] for phrase in whole]
    assert parted(words, known, []) == []
    twice = phrases("the town, the place")  # both halves name the same
    assert parted(words, known, twice) == [twice]


def test_an_overlooked_phrase_is_found(known: Known, words: WordEmbedder) -> None:
    text = "Give the town 4, whispering please."
    (found,) = overlooked(words, known, [text], [phrases("the town")])
    assert found[0].text == "whispering"
    assert found[0].primitive == "soft"
    ((all_of_it, left),) = mended(words, known, [text], [phrases("the town")])
    assert [phrase.text for phrase in all_of_it] == ["the town", "whispering"]
    assert left == []


def test_nothing_is_overlooked_twice_or_in_usual_words(known: Known, words: WordEmbedder) -> None:
    assert {"say", "give", "and"} <= known.usual
    assert "whispering" not in known.usual
    assert known.is_usual("Say and give")
    (none,) = overlooked(words, known, ["Give the town and the place."], [phrases("the town")])
    assert none == []  # it is named already
    ((alone, _),) = mended(words, known, ["whispering"], [[]])
    assert alone == []  # a text in which the tagger finds nothing stays without


def test_a_short_wording_is_proposed(known: Known, words: WordEmbedder) -> None:
    (vector,) = words.vectors(["the town at night"])
    assert known.plainest(vector, "home") == "the town"  # of the shortest the nearest
    assert known.plainest(vector, "unheard of") == ""


def test_what_is_near_but_not_near_enough_is_told(words: WordEmbedder) -> None:
    vectors = words.vectors(["shouting loudly now", "the town"])
    known = Known(
        ("shouting loudly now", "the town"), ("loud", "home"), vectors, frozenset({"give"})
    )
    ((kept, left),) = mended(words, known, ["Give the town, loudly now."], [phrases("the town")])
    assert [phrase.text for phrase in kept] in (["the town"], ["the town", "loudly now"])
    assert "loudly now" in [*left, *(phrase.text for phrase in kept)]
    blind = replace(known, usual=frozenset())
    ((alone, none),) = mended(words, blind, ["Give the town, loudly now."], [phrases("the town")])
    assert ([phrase.text for phrase in alone], none) == (["the town"], [])


@pytest.mark.parametrize(
    ("text", "phrase", "known", "found"),
    [
        ("Don't use capitals.", "use capitals", "use capitals", ("Don't use capitals",)),
        ("Never answer in JSON", "answer in JSON", "in JSON", ("Never answer in JSON",)),
        ("Antworte nicht wie ein Pirat", "Antworte nicht wie ein Pirat", "wie ein Pirat",
         ("Antworte nicht wie ein Pirat",)),
        ("Answer without any fuss.", "without any fuss", "without a fuss", ()),
        ("Do not forget: answer in JSON.", "answer in JSON", "in JSON", ()),
        ("Ich will keine Listen.", "Listen", "als Liste", ("keine Listen",)),
        ("Nothing of note: the town", "the town", "the town", ()),
        ("I do not care what others think of it but in capitals", "in capitals", "capitals", ()),
    ],
)  # fmt: skip
def test_negations(text: str, phrase: str, known: str, found: tuple[str, ...]) -> None:
    assert negations(text, [phrase], [known]) == found


def test_mixed_descriptions_keep_their_marks(tasks: Tasks) -> None:
    told = [d for task in tasks.of("train") for d in task.of_set()]
    more = mixed(told, random.Random(0))
    changed = [d for d, before in zip(more, told, strict=True) if d != before]
    assert 0.2 * len(told) * MIXED < len(changed) < len(told)
    for description in more:
        for (start, end), phrase in zip(
            description.spans(), description.parts.values(), strict=True
        ):
            assert description.text[start:end] == phrase
    assert all(len(d.parts) > 1 for d in changed)
    both = Description(text="Say the town in capitals", parts={"home": "the town"}, language="en")
    assert mixed([both], random.Random(0)) == [both]  # nothing else to take from
