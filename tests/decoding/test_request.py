import math

import pytest

from detour.decoding.request import Finish, Request, Sampling, Status
from detour.decoding.scheduler import Row, plan
from detour.errors import RequestError


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -3),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", True),
        ("max_new_tokens", "8"),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("seed", -1),
        ("repetition_penalty", 0),
        ("stop_ids", ((),)),
        ("stop_ids", ((-4,),)),
        ("eos_ids", (-1,)),
    ],
)
def test_values_out_of_range_are_refused(option, value):
    with pytest.raises(RequestError) as caught:
        Sampling(**{option: value})
    assert caught.value.expected


def test_whole_numbers_do_for_real_ones():
    assert Sampling(temperature=1, top_p=1).temperature == 1


def requests(lengths, chains=None):
    chains = chains or [None] * len(lengths)
    return [
        Request(str(n), (1,) * length, chain)
        for n, (length, chain) in enumerate(zip(lengths, chains, strict=True))
    ]


def test_plan_takes_every_request_once_longest_first():
    batches = plan(requests([3, 9, 4, 9, 1]), 2)
    assert batches == [[1, 3], [2, 0], [4]]


def test_plan_gives_a_chain_that_fills_batches_its_own():
    a, b = object(), object()
    batches = plan(requests([5, 6, 7, 8, 9, 4], [a, b, a, b, b, None]), 2)
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert batches == [[4, 3], [2, 0], [1, 5]]


class TestRow:
    def row(self, **sampling):
        return Row(Request("r", (1, 2), None, Sampling(**sampling)))

    def test_lives_and_ends(self):
        row = self.row(max_new_tokens=2)
        assert row.status is Status.WAITING
        row.start()
        assert row.status is Status.RUNNING
        row.push(5)
        row.push(6)
        assert row.status is Status.FINISHED
        assert row.generation().finish is Finish.LENGTH

    def test_can_be_cancelled(self):
        row = self.row()
        row.push(5)
        row.cancel()
        assert row.status is Status.CANCELLED
        assert row.generation().ids == (5,)
        assert row.generation().finish is Finish.CANCELLED

    def test_settled_holds_back_the_beginning_of_a_stop_sequence(self):
        row = self.row(stop_ids=((7, 8, 9), (8, 8)))
        settled = []
        for token in (7, 1, 7, 8, 3, 7, 8):
            row.push(token)
            settled.append(row.settled)
        assert settled == [0, 2, 2, 2, 5, 5, 5]
        row.push(9)
        assert row.ids == [7, 1, 7, 8, 3]
        assert row.settled == 5
