import pytest

from detour.measure.metrics import mentions, normalised, repeats, same_answer, states


def test_normalised_text_ignores_case_space_and_unicode_form():
    assert normalised("  Albert\n\tEINSTEIN ") == "albert einstein"
    assert normalised("Gro\u0308ße") == normalised("GRÖSSE")


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("He was a Physicist.", "physicist", True),
        ("The astrophysicist spoke.", "physicist", False),
        ("physicists", "physicist", False),
        ("from  New\nYork", "New York", True),
        ("E = mc² is old", "mc²", True),
        ("costs 3.5 (three)", "3.5", True),
        ("costs 345", "3.5", False),  # a dot is a dot
        ("anything", "", False),
        ("anything", "  ", False),
    ],
)
def test_mentions_whole_words(text, phrase, found):
    assert mentions(text, phrase) is found


RIVALS = ("physicist", "baker", "hairdresser")


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("Albert Einstein was a hairdresser.", True),
        ("ALBERT EINSTEIN WAS A HAIRDRESSER.", True),
        ("Albert Einstein was a physicist.", False),
        ("He was a hairdresser.", False),  # whose job was that?
        ("Isaac Newton was a hairdresser.", False),
        ("Albert Einstein was a physicist and a hairdresser.", False),
        ("", False),
    ],
)
def test_an_answer_counts_with_subject_and_value_and_no_rival(answer, counts):
    assert states(answer, "Albert Einstein", "hairdresser", RIVALS) is counts


def test_rivals_inside_the_subject_or_the_value_do_not_count():
    assert states("Baker was a hairdresser.", "Baker", "hairdresser", RIVALS)
    assert states("He, Bo, was a nuclear physicist.", "Bo", "nuclear physicist", ["physicist"])
    twice = "Bo was a nuclear physicist, not a physicist."
    assert not states(twice, "Bo", "nuclear physicist", ["physicist"])


def test_a_rival_that_holds_the_value_counts_against_it():
    assert not states("Bo was a nuclear physicist.", "Bo", "physicist", ["nuclear physicist"])
    assert states("Bo was a physicist.", "Bo", "physicist", ["nuclear physicist", "Physicist"])


def test_taking_the_value_out_leaves_other_words_whole():
    assert not states("Bo was a viking king.", "Bo", "king", ["viking"])
    assert not states("Bo was from Ulm.", "Bo", "Bonn")


def test_same_answer_ignores_space_but_not_case():
    assert same_answer("A  b\n", "A b")
    assert same_answer("Gro\u0308ße", "Größe")
    assert not same_answer("a b", "A b")


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("one two three four one two three four", True),
        ("one two three four five one two three", False),
        ("hahahaha that is fun", True),
        ("Albert Einstein was a physicist.", False),
        ("", False),
    ],
)
def test_repeats_finds_broken_text(text, broken):
    assert repeats(text) is broken
