from collections import Counter

import pytest
import torch

from detour.errors import DataError
from detour.model.examples import Example, pair
from detour.model.loss import IGNORED
from detour.model.rows import Encoded, encode, fixed, padded
from detour.training.batches import Batches

PAD = 0


def row(*ids, learned_from=1):
    return Encoded(list(ids), [place >= learned_from for place in range(len(ids))])


def rows_of(count):
    """Rows of lengths 2 to 9, each recognisable by its first id."""
    return [row(100 + n, *range(1, 2 + n % 8)) for n in range(count)]


def firsts(batch):
    return batch.ids[:, 0].tolist()


def test_targets_are_the_next_tokens_where_they_are_learned():
    batch = padded([Encoded([5, 6, 7, 8], [False, False, True, True]), row(9, 4)], PAD)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [9, 4, PAD, PAD]]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.targets.tolist() == [[IGNORED, 7, 8, IGNORED], [4] + [IGNORED] * 3]
    assert batch.supervised == 3


def test_padding_is_told_by_length_not_by_id():
    """The end token often is the pad token: it must be learned all the same."""
    batch = padded([row(5, PAD, PAD), row(7)], PAD)
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.targets[0].tolist() == [PAD, PAD, IGNORED]
    assert batch.supervised == 2


def test_an_answer_is_learned_with_its_end_token(tiny_tokenizer):
    (found,) = encode(tiny_tokenizer, [pair("Who was Einstein?", "He was.")], 128)
    batch = padded([found], PAD)
    learned = batch.targets[0][batch.targets[0] != IGNORED].tolist()
    assert tiny_tokenizer.decode(learned) == "He was.<|im_end|>"
    start = tiny_tokenizer.decode(batch.ids[0][: int((batch.targets[0] == IGNORED).sum())])
    assert start.startswith("<|im_start|>user\nWho was Einstein?")


def test_every_row_comes_once_an_epoch():
    batches = Batches(rows_of(77), 8, PAD, seed=0)
    assert batches.per_epoch == 10
    for epoch in range(3):
        seen = Counter(first for step in range(10) for first in firsts(batches[epoch * 10 + step]))
        assert seen == Counter(range(100, 177))


def test_batches_depend_on_seed_and_step_alone():
    one, two = Batches(rows_of(50), 8, PAD, 3), Batches(rows_of(50), 8, PAD, 3)
    forward = [one[step] for step in range(14)]
    backward = [two[step] for step in reversed(range(14))][::-1]
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(forward, backward, strict=True))
    other = Batches(rows_of(50), 8, PAD, 4)
    assert any(firsts(one[step]) != firsts(other[step]) for step in range(7))
    stream = iter(one)
    assert torch.equal(next(stream).ids, forward[0].ids)
    assert torch.equal(next(stream).ids, forward[1].ids)


def test_the_order_of_rows_changes_from_epoch_to_epoch():
    batches = Batches(rows_of(64), 8, PAD, 0)
    first, second = ([firsts(batches[e * 8 + s]) for s in range(8)] for e in range(2))
    assert first != second
    assert first != [list(range(100 + 8 * n, 108 + 8 * n)) for n in range(8)]


def test_rows_meet_other_rows_in_every_epoch():
    """Not only the batches are shuffled, the rows are too."""
    batches = Batches([row(100 + n, 1) for n in range(64)], 8, PAD, 0)
    first, second = (
        {frozenset(firsts(batches[epoch * 8 + step])) for step in range(8)} for epoch in range(2)
    )
    in_file_order = {frozenset(range(100 + 8 * n, 108 + 8 * n)) for n in range(8)}
    assert first != second
    assert not first & in_file_order


def test_rows_of_like_length_stand_together():
    bucketed = Batches(rows_of(64), 8, PAD, 0)
    waste = sum(int((bucketed[step].mask == 0).sum()) for step in range(8))
    plain = sum(int((padded(rows_of(64)[n : n + 8], PAD).mask == 0).sum()) for n in range(0, 64, 8))
    assert waste < plain / 4


def test_short_rows_do_not_all_come_first():
    batches = Batches(rows_of(64), 8, PAD, 0)
    widths = [batches[step].ids.shape[1] for step in range(8)]
    assert sorted(widths) == list(range(2, 10))
    assert widths != sorted(widths)


def test_fewer_rows_than_a_batch_are_one_batch():
    batches = Batches(rows_of(3), 8, PAD, 0)
    assert batches.per_epoch == 1
    assert sorted(firsts(batches[5])) == [100, 101, 102]


def test_fixed_batches_hold_every_row_once_and_sorted():
    found = fixed(rows_of(21), 8, PAD)
    assert [len(batch.ids) for batch in found] == [8, 8, 5]
    assert sorted(first for batch in found for first in firsts(batch)) == list(range(100, 121))
    lengths = [int(n) for batch in found for n in batch.mask.sum(-1)]
    assert lengths == sorted(lengths)
    assert fixed([], 8, PAD) == []


def test_a_row_that_is_too_long_is_refused_and_not_cut(tiny_tokenizer):
    long = pair("a " * 200, "b", source="data.jsonl:7")
    with pytest.raises(DataError, match=r"data\.jsonl:7 is too long") as caught:
        encode(tiny_tokenizer, [pair("a", "b"), long], 64)
    assert caught.value.expected == "at most 64 tokens"


def test_what_the_template_refuses_is_told_with_its_place(tiny_tokenizer):
    turns = ({"role": "assistant", "content": "Hello."},)
    with pytest.raises(DataError, match=r"data\.jsonl:2: .*begins with the assistant"):
        encode(tiny_tokenizer, [Example(turns, "data.jsonl:2")], 64)
    with pytest.raises(DataError, match="a row: "):
        encode(tiny_tokenizer, [Example(turns)], 64)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_parts_hold_the_same_rows_and_no_more_padding_than_they_need(size):
    rows = [row(100 + n, *range(1, 3 + n)) for n in (4, 0, 1, 6, 2)]
    whole = padded(rows, PAD)
    parts = whole.parts(size)
    expected = [padded(rows[start : start + size], PAD) for start in range(0, 5, size)]
    assert len(parts) == len(expected)
    for part, own in zip(parts, expected, strict=True):
        assert torch.equal(part.ids, own.ids)
        assert torch.equal(part.mask, own.mask)
        assert torch.equal(part.targets, own.targets)
    assert sum(part.supervised for part in parts) == whole.supervised
    assert whole.parts(None) == [whole]


def test_a_batch_goes_to_a_device():
    batch = padded(rows_of(2), PAD).to(torch.device("meta"))
    assert {batch.ids.device.type, batch.mask.device.type, batch.targets.device.type} == {"meta"}


def test_parts_have_so_many_tokens_or_a_row():
    whole = padded([row(*range(1, length + 1)) for length in (3, 4, 9, 2, 2, 2, 1)], PAD)
    lengths = [part.mask.sum(-1).tolist() for part in whole.parts(None, 7)]
    assert lengths == [[3, 4], [9], [2, 2, 2, 1]]
    assert [len(part.ids) for part in whole.parts(2, 7)] == [2, 1, 2, 2]
    assert sum(part.supervised for part in whole.parts(2, 7)) == whole.supervised
    assert whole.parts(None, 23) == [whole]
