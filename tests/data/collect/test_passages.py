"""Cutting documents: nothing is lost, nothing is too long, headings stay with their text."""

from hypothesis import given
from hypothesis import strategies as st

from detour.data.collect.passages import Block, passages

LIMIT = 60
words = st.text(st.sampled_from("abc é漢.!?\n "), min_size=1, max_size=200)
blocks = st.lists(
    st.builds(
        lambda told, heading, verbatim: Block(told, 1, heading, verbatim),
        words.filter(str.strip), st.booleans(), st.booleans(),
    ),
    max_size=12,
)  # fmt: skip


def is_short(told: str) -> bool:
    return len(told) <= LIMIT


def cut(*given: Block, limit: int = LIMIT) -> list[tuple[str, int]]:
    return list(passages(given, lambda told: len(told) <= limit))


@given(blocks)
def test_nothing_is_lost_and_nothing_is_too_long(given_blocks):
    found = list(passages(given_blocks, is_short))
    assert all(is_short(told) for told, _ in found)
    before = "".join("".join(block.text.split()) for block in given_blocks)
    assert "".join("".join(told.split()) for told, _ in found) == before


def test_short_sections_share_a_passage_and_a_long_one_begins_its_own():
    short = [Block("# One", 1, True), Block("text", 3), Block("# Two", 5, True), Block("more", 7)]
    assert cut(*short) == [("# One\n\ntext\n\n# Two\n\nmore", 1)]
    long = [Block("# Three", 9, True), Block("x" * 50, 11)]
    assert [line for _, line in cut(*short, *long)] == [1, 9]


def test_a_section_that_fits_is_not_divided():
    before = Block("y" * 40, 1)
    section = [Block("# Title", 3, True), Block("a" * 20, 5), Block("b" * 20, 7)]
    assert cut(before, *section) == [
        ("y" * 40, 1), ("# Title\n\n" + "a" * 20 + "\n\n" + "b" * 20, 3)
    ]  # fmt: skip


def test_no_heading_ends_a_passage():
    section = [Block("# Title", 1, True), *(Block(letter * 40, 3) for letter in "abc")]
    assert [told.split("\n")[0] for told, _ in cut(*section)] == ["# Title", "b" * 40, "c" * 40]


def test_a_long_paragraph_is_cut_behind_a_sentence_and_a_listing_behind_a_line():
    told = "The first sentence is here. The second one\nfollows. And a third one ends it."
    assert cut(Block(told, 5)) == [
        ("The first sentence is here. The second one\nfollows.", 5), ("And a third one ends it.", 6)
    ]  # fmt: skip
    code = "\n".join(f"    line{n} = 'a. b. c'" for n in range(4))
    assert [told.count("\n") for told, _ in cut(Block(code, 5, False, True))] == [1, 1]
    assert all(told.startswith("    line") for told, _ in cut(Block(code, 5, False, True)))


def test_one_endless_word_is_cut_too():
    assert "".join(told for told, _ in cut(Block("x" * 500, 1))) == "x" * 500
