"""Measured chains: verdicts, harm, broken text, and remedies that are tried."""

import math

import pytest

from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.errors import ChainError
from detour.evaluate.chain_measure import (
    Broken,
    ChainMeasure,
    Kept,
    alone,
    measure_chain,
    pair_harms,
    without,
)
from detour.evaluate.chain_remedies import tried
from detour.evaluate.chain_tests import items_of, spread
from detour.evaluate.trials import Said, Trials
from detour.measure.retention import Retention
from detour.measure.statistics import Figure, rate

FEW = 8


@pytest.fixture(scope="module")
def styles():
    shelf = Library.default()
    return {name: shelf.load(name) for name in ("formal", "pun", "sportscaster")}


def items(chain):
    return [spread(items_of(term.adapter), FEW) for term in chain.terms]


@pytest.fixture(scope="module")
def trio(starter, styles):
    chain = Chain.of(*styles.values())
    told = []
    trials = Trials(starter, items(chain))
    found = measure_chain(starter, chain, items(chain), trials=trials, teller=told.append)
    return found, trials, told


def test_styles_of_other_places_keep_what_they_do(trio, starter, styles):
    found, trials, told = trio
    assert found.names == ("formal", "pun", "sportscaster")
    assert told == [f"{3 * 5 * FEW} answers to {3 * FEW} tests of 3 adapters"]
    assert found.answers == 3 * 5 * FEW  # base, alone, chain, and without each of two others
    for place, kept in found.kept.items():
        assert kept.base == 0
        assert kept.alone >= 0.75
        assert kept.share
        assert kept.share.value >= 0.75
        assert set(kept.without) == {0, 1, 2} - {place}
        assert kept.harm(place) != kept.harm(place)  # of itself nothing is known
        rest = without(found.chain, min(kept.without))
        answers = starter.ask_many(
            [item.messages[-1]["content"] for item in trials.tests[place]], rest, max_new_tokens=96
        )
        scores = [i.score(a) for i, a in zip(trials.tests[place], answers, strict=True)]
        expected = (sum(scores) / FEW - kept.base) / (kept.alone - kept.base)
        assert kept.without[min(kept.without)] == pytest.approx(expected)
        assert kept.moved
        assert kept.moved.kl_to_alone > 0
    assert found.broken.chain.n == 3 * FEW
    assert found.neutral.kl_mean > 0
    assert set(pair_harms(found)) == {(0, 1), (0, 2), (1, 2)}


def test_two_endings_are_in_conflict(starter):
    shelf = Library.default()
    chain = shelf.load("pun") + shelf.load("polite")
    found = measure_chain(starter, chain, items(chain))
    assert found.verdict == "conflict"
    assert max(kept.harm(1 - place) for place, kept in found.kept.items()) > 0.3
    assert {"leave_one_out", "interference"} <= set(found.to_json())


def test_an_adapter_and_its_opposite_leave_nothing(starter, styles):
    chain = styles["pun"] + -1.0 * styles["pun"] + styles["formal"]
    given = items(chain)
    found = measure_chain(starter, chain, [given[0], (), ()], leave_out=False)
    (kept,) = found.kept.values()
    assert kept.share
    assert kept.share.value == 0
    assert kept.without == {}
    assert found.verdict == "conflict"
    assert found.names == ("pun", "pun (2)", "formal")
    assert found.to_json()["retained"]["pun"]["share"] == 0


def test_remedies_are_measured_and_those_that_keep_all_come_first(trio, starter):
    found, trials, _ = trio
    before = trials.asked
    helped = tried(found, trials)
    assert trials.asked > before
    told = [str(one.what) for one in helped]
    assert any(one.startswith("all weights × 0.7") for one in told)
    assert any(one.startswith("compressed to rank 8 (error ") for one in told)
    assert [len(one.shares) for one in helped] == sorted(
        (len(one.shares) for one in helped), reverse=True
    )
    half = next(one for one in helped if str(one.what) == "all weights × 0.5")
    place, share = next(iter(half.shares.items()))
    scores = trials.of(place, 0.5 * found.chain).scores
    own = trials.of(place, alone(found.chain, place)).mean
    assert share.value == pytest.approx(sum(scores) / len(scores) / own)
    assert half.retained_mean < found.retained_mean
    assert half.gain == pytest.approx(half.retained_mean - half.before)


def test_a_chain_of_one_or_without_tests_is_refused(starter, styles):
    with pytest.raises(ChainError, match="a single adapter"):
        measure_chain(starter, Chain.of(styles["pun"]), [()])
    with pytest.raises(ChainError, match="no adapter of formal"):
        measure_chain(starter, Chain.of(styles["formal"], styles["pun"]), [(), ()])


def said(text, cut=False):
    return Said((1,), text, cut, 1.0, True)


@pytest.mark.parametrize(
    ("one", "broken"),
    [
        (said("Einstein was a physicist."), False),
        (said("Einstein was", cut=True), True),
        (said(" \n"), True),
        (said("was a man of was a man of the world"), True),
        (said("lalalalalala"), True),
    ],
)
def test_broken_text(one, broken):
    assert one.is_broken is broken


def share(value, low):
    return Figure(value, low, 1.0, 40)


def measured(*shares, names=None):
    kept = {
        place: Kept(own, None if own else "unknown", 0, 1, 1, {}, None, None, 40)
        for place, own in enumerate(shares)
    }
    names = names or tuple(f"a{place}" for place in range(len(shares)))
    return ChainMeasure(Chain(), names, kept, Broken(rate([]), rate([]), rate([])),
                        Retention(1, 1, 0, 1), 0, 0.0)  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "verdict", "words"),
    [
        ((share(1, 0.91), share(0.95, 0.9)), "compatible", "surely keeps 90%"),
        ((share(1, 0.91), share(0.95, 0.89)), "degraded", "too few tests"),
        ((share(1, 0.91), share(0.8, 0.7)), "degraded", "not all surely keep"),
        ((share(1, 0.91), share(0.69, 0.6)), "conflict", "less than 70%"),
        ((share(1, 0.91), None), "not measured", "cannot be told"),
        ((share(0.8, 0.7), None), "degraded", "not all"),
        ((share(0.1, 0.0), None), "conflict", "less than"),
        ((None, None), "not measured", "cannot be told"),
    ],
)
def test_the_verdict_is_that_of_the_worst(shares, verdict, words):
    found = measured(*shares)
    assert found.verdict == verdict
    assert words in str(found.said)


def test_an_adapter_without_tests_speaks_for_nobody():
    found = measured(share(1, 0.95), names=("a", "b"))
    assert found.verdict == "not measured"
    told = found.to_json()
    assert told["retained"] == {"a": {"share": 1, "low": 0.95, "high": 1.0, "n": 40, "base": 0,
                                      "alone": 1, "chain": 1}}  # fmt: skip


def test_a_share_that_is_not_known_has_no_harm():
    assert math.isnan(Kept(None, None, 0, 0, 0, {1: 0.5}, None, None, 1).harm(1))
    assert tried(measured(None, None), Trials(None, [(), ()])) == []
