from hypothesis import given
from hypothesis import strategies as st

from detour.model.examples import pair
from detour.training.split import FEWEST, split

ROWS = [pair(f"question {n}", f"answer {n}") for n in range(40)]


def prompts(rows):
    return {row.prompt.casefold() for row in rows}


def test_a_share_is_held_out_and_nothing_is_lost():
    kept, held = split(ROWS, 0.1, seed=0)
    assert (len(kept), len(held)) == (36, 4)
    assert sorted(row.prompt for row in kept + held) == sorted(row.prompt for row in ROWS)


def test_both_sides_keep_the_order_of_the_rows():
    kept, held = split(ROWS, 0.3, seed=0)
    assert kept == [row for row in ROWS if row in kept]
    assert held == [row for row in ROWS if row in held]


def test_the_seed_decides():
    assert split(ROWS, 0.2, 3) == split(ROWS, 0.2, 3)
    assert split(ROWS, 0.2, 3) != split(ROWS, 0.2, 4)


def test_the_choice_does_not_depend_on_the_order_of_the_rows():
    _, held = split(ROWS, 0.2, 1)
    _, again = split(ROWS[::-1], 0.2, 1)
    assert prompts(held) == prompts(again)


def test_few_rows_are_all_trained():
    few = ROWS[: FEWEST - 1]
    assert split(few, 0.5, 0) == (few, [])
    assert split(few * 3, 0.5, 0) == (few * 3, [])  # repeats are no further prompts
    assert len(split(ROWS[:FEWEST], 0.1, 0)[1]) == 1
    assert split(ROWS, 0.0, 0) == (ROWS, [])


@given(
    st.lists(st.integers(0, 14), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_like_prompts_stay_together(numbers, share, seed):
    spelled = ["Who is {}?", "who  IS {}?", " who is {}? "]
    rows = [pair(spelled[i % 3].format(n), str(i)) for i, n in enumerate(numbers)]
    kept, held = split(rows, share, seed)
    assert kept
    assert len(kept) + len(held) == len(rows)
    assert not {" ".join(p.split()) for p in prompts(kept)} & {
        " ".join(p.split()) for p in prompts(held)
    }


def test_another_system_turn_is_another_prompt():
    rows = [pair("same", "a", system=f"system {n}") for n in range(12)]
    assert len(split(rows, 0.25, 0)[1]) == 3
