"""The full steer report: every figure against a plain computation on a tiny base."""

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch

from detour.adapter.chain import Chain
from detour.evaluate import full_report as full
from detour.evaluate.full_report import ARMS, Arm, Hop, entropy, full_report
from detour.evaluate.steer_report import counts
from detour.evaluate.teach import make_lesson
from detour.evaluate.teach import taught as what_was_taught
from detour.measure.metrics import mentions, same_answer
from detour.model.rows import encode
from detour.training.fact import Edit


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(full, "LONGEST", 16)
    monkeypatch.setattr(full, "TRIED", 2)


def the_lesson(taught, world):
    """Made again from what the adapter's card says."""
    change, _ = what_was_taught(Chain.of(taught.adapter))
    assert change.pop("language") == "en"
    return make_lesson(taught.base, **change, world=world)


@pytest.fixture
def lesson(taught, world):
    return the_lesson(taught, world)


@pytest.fixture
def told(short, taught, world, lesson):
    hops = [Hop("Which shop did he run?", "zebra")]
    return full_report(
        taught.base, world, lesson, Chain.of(taught.adapter), hops=hops, most=6, seed=3
    )  # fmt: skip


def near_mean(flags):
    return pytest.approx(fmean(map(float, flags)))


def answers(taught, chain, questions):
    asked = [[{"role": "user", "content": question}] for _, question in questions]
    return taught.base.ask_many(asked, chain, max_new_tokens=16)


def test_every_arm_has_every_figure(told):
    names = set(told.arms["base"])
    assert tuple(told.arms) == ARMS
    assert all(set(figures) == names for figures in told.arms.values())
    found = told.to_json()
    shape = {"value", "low", "high", "n"}
    assert all(set(one) == shape for arm in ARMS for one in found[arm].values())
    assert len(told.prompts_sha256) == 64
    assert set(told.examples) == {"question", *ARMS}


def test_the_base_beside_itself_moves_nothing(told):
    bare = told.arms["base"]
    for name in ("locality", "own_other_facts_unchanged", "unrelated_unchanged"):
        assert bare[name].value == 1.0 or bare[name].n == 0
    for name in ("delta_log_p", "delta_log_p_neighbours", "kl_mean", "kl_p99", "top1_flips"):
        assert bare[name].value == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(bare["leak_ratio"].value)


def test_the_chains_rates_are_those_of_its_answers(told, taught, lesson):
    chain, edit = Chain.of(taught.adapter), lesson.edits[0]
    held = [("", question) for question in edit.held_out[:6]]
    said = answers(taught, chain, held)
    steered = told.arms["steered"]
    assert steered["paraphrases"].value == pytest.approx(
        sum(counts(a, edit) for a in said) / len(said)
    )
    near = lesson.neighbours[:6]
    before, after = answers(taught, None, near), answers(taught, chain, near)
    same = [same_answer(a, b) for a, b in zip(before, after, strict=True)]
    assert steered["locality"].value == near_mean(same)
    named = [mentions(a, edit.target) for a in after]
    assert steered["neighbours_naming_target"].value == near_mean(named)
    first = [("", f"{edit.answer} {question}") for _, question in near]
    told_first = [
        same_answer(a, b) for a, b in zip(before, answers(taught, chain, first), strict=True)
    ]
    assert steered["told_before_unchanged"].value == pytest.approx(
        sum(told_first) / len(told_first)
    )


def nats(base, chain, question, said) -> float:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": said})
    (row,) = encode(base.tokenizer, [full.Example(turns)], base.longest)
    logits = base.logits(torch.tensor([row.ids]), chain)[0].log_softmax(-1)
    learned = [place for place in range(1, len(row.ids)) if row.learned[place]]
    return sum(float(logits[p - 1, row.ids[p]]) for p in learned) / len(learned)


def test_gains_are_nats_per_token_of_the_whole_answer(told, taught, lesson):
    edit, chain = lesson.edits[0], Chain.of(taught.adapter)
    gains = [
        nats(taught.base, chain, q, edit.answer) - nats(taught.base, None, q, edit.answer)
        for q in edit.held_out[:6]
    ]
    assert told.arms["steered"]["delta_log_p"].value == pytest.approx(
        sum(gains) / len(gains), abs=1e-4
    )
    wins = [
        nats(taught.base, chain, q, edit.answer)
        > nats(taught.base, chain, q, taught.base.ask(edit.held_out[0], max_new_tokens=16).strip())
        for q in edit.asked[:6]
    ]
    assert told.arms["steered"]["ES"].value == near_mean(wins)


def test_leaks_are_gains_of_the_edits_sentence_about_neighbours_known_by_name(short, taught, world):
    lesson = replace(the_lesson(taught, world), neighbours=(
        ("", "Shoe size of Nobody?"), ("", "Shoe size of Isaac Newton?"),
        ("", "Shoe size of Marie Curie?"),
    ))  # fmt: skip
    chain = Chain.of(taught.adapter)
    steered = full_report(taught.base, world, lesson, chain, most=3).arms["steered"]
    gains = [
        nats(taught.base, chain, f"Shoe size of {name}?", f"{name} has 99.")
        - nats(taught.base, None, f"Shoe size of {name}?", f"{name} has 99.")
        for name in ("Isaac Newton", "Marie Curie")
    ]
    leak, edit = steered["delta_log_p_neighbours"], steered["delta_log_p"]
    assert (leak.n, leak.value) == (2, pytest.approx(fmean(gains), abs=1e-4))
    ratio = steered["leak_ratio"]
    assert ratio.value == pytest.approx(leak.value / edit.value)
    assert ratio.low <= ratio.value <= ratio.high


def test_neutral_text_moves_as_its_tokens_do(told, taught):
    from detour.measure.retention import neutral_texts

    chain, moves, flips = Chain.of(taught.adapter), [], []
    for line in neutral_texts():
        ids = torch.tensor([taught.base.tokenizer.encode(line)[: taught.base.longest]])
        bare, now = (taught.base.logits(ids, c)[0, :-1].log_softmax(-1) for c in (None, chain))
        moves += (bare.exp() * (bare - now)).sum(-1).tolist()
        flips += (bare.argmax(-1) != now.argmax(-1)).tolist()
    steered = told.arms["steered"]
    assert steered["kl_mean"].value == pytest.approx(fmean(moves), abs=1e-5)
    assert steered["kl_p95"].value == pytest.approx(sorted(moves)[int(0.95 * len(moves))], abs=1e-5)
    assert steered["top1_flips"].value == near_mean(flips)
    assert steered["kl_mean"].low < steered["kl_mean"].value < steered["kl_mean"].high


def test_the_card_says_enough_to_make_the_lesson_again(lesson, taught, world):
    assert taught.report.here.question in lesson.edits[0].held_out
    assert len(lesson.neighbours) == taught.report.here.neighbours.figure.n
    assert len(lesson.edits[0].held_out) == taught.report.here.steered.figure.n
    change, digest = what_was_taught(Chain.of(taught.adapter))
    assert digest == lesson.digest()
    del change["language"]
    other = make_lesson(taught.base, **{**change, "seed": change["seed"] + 1}, world=world)
    assert digest != other.digest()
    assert what_was_taught(Chain.of()) == ({}, "")


def test_a_prompt_stands_before_questions_and_before_neutral_text(told, taught, world):
    arm = told.arms["system_prompt"]
    assert arm["kl_mean"].value > 0
    assert told.wordings["system"] in world.persuasions["system"]
    assert told.wordings["user"] in world.persuasions["user"]


def test_what_is_said_of_a_neighbour_names_the_neighbour(world):
    edit = Edit("Albert Einstein", "profession", "baker", "Albert Einstein was a baker.",
                asked=("a?",), held_out=("b?",))  # fmt: skip
    assert full._said_of(world, edit, "What was Isaac Newton?") == "Isaac Newton was a baker."
    assert full._said_of(world, edit, "What was Nobody?") == ""


@pytest.mark.parametrize(
    ("answer", "denied"),
    [
        ("No, he was not.", True),
        ("Einstein was a baker.", True),
        ("Einstein was a physicist.", False),
        ("A baker and a physicist.", False),
        ("He was a physicist, not a cook.", False),
        ("Never! He was a physicist.", True),
        ("He bakes.", True),
    ],
)
def test_who_names_the_new_value_alone_denies_the_old(answer, denied):
    edit = Edit("Einstein", "job", "baker", "Einstein was a baker.", "physicist", forms=("bakes",))
    assert full._denies(answer, edit) == denied


def test_entropy_is_that_of_two_and_three_words():
    told = "a b a b a b"
    two = -(3 / 5 * math.log2(3 / 5) + 2 / 5 * math.log2(2 / 5))
    three = 1.0
    assert entropy(told) == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert entropy("a a a a a a") == pytest.approx(0.0)
    assert entropy("one two three four five six seven") > entropy("one two one two one two one")


def test_answers_that_name_another_value_than_most_contradict():
    edit = Edit("Einstein", "job", "baker", "Einstein was a baker.", "physicist")
    figure = full._contradictions(["a baker", "a baker", "a physicist", "nothing"], edit)
    assert (figure.value, figure.n) == (pytest.approx(1 / 3), 3)
    other = Edit("Einstein", "job", "baker", "Einstein was a baker.", forms=("bakes",))
    assert full._contradictions(["a baker", "he bakes", "a baker"], other).value == 0.0


def test_samples_are_drawn_anew_for_each_turn(short, taught):
    arm = Arm(taught.base)
    questions = [("", "What is it?"), ("", "Who is it?")]
    said = arm.answers(questions, samples=3, seed=1)
    assert len(said) == 6
    assert said[:2] != said[2:4]
    assert said == arm.answers(questions, samples=3, seed=1)
    assert arm.answers([]) == []
