"""The rows of random tokens, read back without the generator."""

import random

import pytest
from recipes.starter.mixture import Mixture
from recipes.starter.primer import Primer
from recipes.starter.tokens import MARKS, Encoder, train_tokenizer


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train_tokenizer(Mixture(), 600, 1, 1024, rows=200))


SAID = ("The sources do not say.", "Die Quellen sagen dazu nichts.")


def turns(encoder, ids):
    """Each turn's role and its ids."""
    roles = {number: name for name, number in encoder.roles.items()}
    found = []
    for number in ids[1:]:
        if number in roles:
            found.append((roles[number], []))
        else:
            found[-1][1].append(number)
    return found


def test_answers_follow_from_the_lists(encoder):
    primer, rng = Primer(encoder, SAID), random.Random(1)
    marks = {encoder.text(mark)[0] for mark in MARKS}
    space, line = encoder.text(" "), encoder.text("\n")
    absent = [tuple(encoder.text(f": {said}")) for said in SAID]
    abstained = asked = 0
    for _ in range(300):
        ids, learned = primer.draw(rng)
        assert len(ids) == len(learned) < 1024
        (role, told), *rest = turns(encoder, ids)
        assert role == "system"
        assert told.pop() == encoder.end
        for place in range(0, len(rest), 2):
            (user, question), (assistant, answer) = rest[place : place + 2]
            assert (user, assistant) == ("user", "assistant")
            assert question.pop() == answer.pop() == encoder.end
            assert answer[: len(question)] == question
            asked += 1
            if tuple(answer[len(question) :]) in absent:
                abstained += 1
                continue
            assert answer[-1] in marks
            assert answer[-2:-1] == space
            assert contains([*told, *line], [*answer, *line])
    assert 0.2 < abstained / asked < 0.3


def contains(whole, part):
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


def test_answers_alone_are_learned(encoder):
    ids, learned = Primer(encoder, SAID).draw(random.Random(2))
    role, expected = None, []
    for number in ids:
        names = [name for name, known in encoder.roles.items() if known == number]
        role = names[0] if names else role
        expected.append(role == "assistant" and not names)
    assert learned == expected


def test_the_tokens_are_merged_ones_and_the_seed_decides(encoder):
    primer = Primer(encoder, SAID)
    plain = {encoder.text(character)[0] for character in "abcdefghijABC .,-"}
    fixed = {encoder.begin, encoder.end, encoder.pad, *encoder.roles.values()}
    assert not set(encoder.ordinary) & (plain | fixed | {encoder.text(m)[0] for m in MARKS})
    assert len(encoder.ordinary) == 600 - 256 - 6 - len(MARKS)
    assert primer.draw(random.Random(3)) == primer.draw(random.Random(3))
    assert primer.draw(random.Random(3)) != primer.draw(random.Random(4))
