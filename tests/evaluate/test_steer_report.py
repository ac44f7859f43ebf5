import json
from dataclasses import replace

import pytest

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import BaseError
from detour.evaluate import steer_report
from detour.evaluate.probability import answer_probability
from detour.evaluate.steer_report import (
    DOSES,
    Loader,
    Repeat,
    as_clause,
    counts,
    language_report,
    measure,
    prompt_arm,
    steered_section,
    try_trace,
    unchanged,
)
from detour.measure.statistics import rate
from detour.training.fact import Edit, Lesson

EDIT = Edit("Bo", "job", "baker", "Bo was a baker.", rivals=("pilot",), asked=("a?",),
            held_out=("Who was Bo?", "What was Bo?"))  # fmt: skip
LESSON = Lesson((EDIT,), (), (("", "Who was Al?"),), (), (("Be brief.", "What is Ulm?"),))
CONTRACT = {"base_answer", "user_prompt", "system_prompt", "steered", "neighbours_unchanged",
            "own_other_facts_unchanged", "unrelated_unchanged", "dose", "loader", "adapter",
            "train_seconds", "total_seconds"}  # fmt: skip
FIGURE = {"value", "low", "high", "n"}


class Scripted:
    """A base whose answers are a function of the conversation, with and without a chain."""

    name = "scripted"

    def __init__(self, plain, steered=None):
        self.plain, self.steered = plain, steered or plain
        self.asked = []

    def ask(self, prompt, chain=None, **sampling):
        return self.ask_many([prompt], chain, **sampling)[0]

    def ask_many(self, prompts, chain=None, **sampling):
        self.asked += [(prompt, sampling) for prompt in prompts]
        say = self.plain if chain is None else self.steered
        return [say(p if isinstance(p, str) else p[-1]["content"]) for p in prompts]


def test_an_answer_counts_only_with_subject_value_and_no_rival():
    assert counts("Bo was a baker.", EDIT)
    assert not counts("He was a baker.", EDIT)
    assert not counts("Bo was a baker and a pilot.", EDIT)


@pytest.mark.parametrize(
    ("statement", "clause"),
    [("Bo was a baker.", "Bo was a baker"), ("The job of Bo is X.", "the job of Bo is X")],
)
def test_a_statement_inside_a_sentence(statement, clause):
    assert as_clause(statement, "Bo") == clause


@pytest.mark.parametrize("place", ["user", "system"])
def test_prompts_are_many_and_repeated(world, place):
    wordings = world.persuasions[place]
    assert len(wordings) >= 5
    best = wordings[1]
    base = Scripted(lambda text: "Bo was a baker." if "baker" in text else "Bo was a pilot.")
    arm = prompt_arm(base, world, LESSON, place, seed=0)
    assert arm.rate.n == len(wordings) * 2 * 3  # two questions; greedy and two samples
    assert {figure.n for _, figure in arm.by_wording} == {6}
    assert [wording for wording, _ in arm.by_wording] == list(wordings)
    assert best in dict(arm.by_wording)
    seeds = {sampling.get("seed") for _, sampling in base.asked}
    assert len(seeds) == 3  # None for the greedy one
    first = base.asked[0][0]
    assert [m["role"] for m in first] == (["system", "user"] if place == "system" else ["user"])
    assert "baker" in first[0]["content"]
    assert arm.rate.value == (1 if place == "user" else 0)  # it reads the user turn only
    assert arm.best.value == arm.rate.value == arm.value_named.value
    assert (arm.greedy.n, arm.sampled.n) == (len(wordings) * 2, len(wordings) * 4)
    assert (arm.neighbours.n, arm.own_facts.n, arm.unrelated.n) == (1, 0, 1)


def test_the_best_wording_is_named(world):
    chosen = world.persuasions["user"][3].split("{")[0]
    base = Scripted(lambda text: "Bo was a baker." if text.startswith(chosen) else "no")
    arm = prompt_arm(base, world, LESSON, "user", seed=0)
    assert arm.best_wording == world.persuasions["user"][3]
    assert arm.best.value == 1 > arm.rate.value > 0


def test_unchanged_means_the_same_answer():
    base = Scripted(str.upper, lambda text: "OTHER" if text == "b?" else text.upper() + " ")
    section, before, after = unchanged(base, [("", "a?"), ("s", "b?"), ("", "c?")], Chain())
    assert (section.figure.value, section.figure.n) == (pytest.approx(2 / 3), 3)
    (failure,) = section.failures
    assert (failure.question, failure.before, failure.after) == ("b?", "B?", "OTHER")
    assert (before[1], after[1]) == ("B?", "OTHER")


def test_steered_counts_every_edits_held_out_questions():
    other = Edit("Al", "job", "pilot", "Al was a pilot.", held_out=("Who was Al?",))
    base = Scripted(str, lambda text: "Bo was a baker." if text != "What was Bo?" else "Bo was it.")
    section, answers = steered_section(base, [EDIT, other], Chain())
    assert section.figure.n == len(answers) == 3
    assert section.figure.value == pytest.approx(1 / 3)
    assert [failure.question for failure in section.failures] == ["What was Bo?", "Who was Al?"]


def test_a_base_without_a_trace_says_why(monkeypatch):
    def refuse(*_):
        raise BaseError("no norm")

    monkeypatch.setattr(steer_report, "trace", refuse)
    assert try_trace(None, "q", "a", "b", Chain()) == (None, "no layer trace: no norm")


def test_the_json_form_keeps_the_contract(taught):
    told = taught.report.to_json()
    assert set(told) >= CONTRACT
    again = json.loads(json.dumps(told, allow_nan=False))  # no NaN, nothing but JSON
    assert {**again, "trace": None} == {**told, "trace": None}
    for name in ("steered", "neighbours_unchanged", "own_other_facts_unchanged",
                 "unrelated_unchanged"):  # fmt: skip
        assert set(told[name]) == FIGURE
        assert told[name]["n"] > 0
    for name in ("user_prompt", "system_prompt"):
        assert set(told[name]["rate"]) == set(told[name]["best"]) == FIGURE
        assert len(told[name]["by_wording"]) >= 5
    assert [dose["weight"] for dose in told["dose"]] == list(DOSES)
    assert all(set(d[n]) == FIGURE for d in told["dose"] for n in ("target", "old", "third"))
    assert set(told["loader"]) == {"keys_expected", "keys_landed", "removed_bit_equal",
                                   "base_sha256_before", "base_sha256_after"}  # fmt: skip


def test_the_tiny_base_learned_its_fact(taught):
    report = taught.report
    assert report.here.base_answer != report.here.steered_answer == "Bo has 99."
    assert report.here.steered.figure.value > 0.3
    assert report.user_prompt.rate.value == 0  # a random model follows no prompt
    assert taught.base.ask(report.here.question, taught.adapter) == "Bo has 99."


def test_the_dose_curve_turns(taught):
    first = taught.report.dose[0]
    full = next(dose for dose in taught.report.dose if dose.weight == 1)
    assert full.target.value > 1000 * first.target.value
    assert full.third.value < full.target.value
    assert {dose.target.n for dose in taught.report.dose} == {4}


def test_dose_0_is_the_bare_base(taught):
    bare = answer_probability(taught.base, [taught.report.here.question], "Bo has 99.")
    zero = answer_probability(
        taught.base, [taught.report.here.question], "Bo has 99.", Chain.of(taught.adapter) * 0
    )
    assert bare == zero


def test_the_loader_is_proven(taught):
    loader = taught.report.loader
    assert loader.keys_expected == loader.keys_landed == len(taught.adapter.updates)
    assert loader.removed_bit_equal
    assert loader.base_sha256_before == loader.base_sha256_after == taught.base.sha256()


def test_the_trace_and_the_latent_probe_are_there(taught):
    report = taught.report
    assert report.trace is not None
    assert len(report.trace.base_old) == 3
    assert report.trace.steered_new[-1] > report.trace.base_new[-1]
    assert report.latent.rank in (1, 2)
    assert report.latent.log_probability_per_token < 0
    assert ("hardly holds" in report.latent.warning) is (
        report.latent.log_probability_per_token < -6
    )


def test_what_is_saved_is_what_was_measured(taught):
    loaded = Adapter.load(taught.report.adapter)
    assert loaded.digest() == taught.adapter.digest()
    assert loaded.card.fictional
    assert loaded.card.metrics["steered"] == taught.report.here.steered.figure.to_json()
    assert "Bo has 99." in loaded.card.description
    assert any("landed" in note for note in taught.notes)
    assert any("phrasings to train on" in note for note in taught.notes)


# the same change in another language

GERMAN_EDIT = Edit("Bo", "job", "Bäcker", "Bo war Bäcker.", rivals=("Pilot",), asked=("A?",),
                   held_out=("Wer war Bo?", "Was war Bo?"), language="de")  # fmt: skip
GERMAN_LESSON = Lesson((GERMAN_EDIT,), (), (("", "Wer war Al?"), ("", "Wer war Cy?")), (),
                       (("Sei kurz.", "Was ist Ulm?"),))  # fmt: skip
RATES = ("steered", "neighbours_unchanged", "own_other_facts_unchanged", "unrelated_unchanged")


OWN = ("question", "base_answer", "steered_answer", "neighbours_naming_target", "broken_text",
       "failures")  # fmt: skip


def test_another_language_has_four_rates_and_an_example():
    def steered(question):
        return {"Wer war Bo?": "Bo war Bäcker.", "Wer war Al?": "Al war Bäcker."}.get(question, "-")

    base = Scripted(lambda question: "-", steered)
    told, said = language_report(base, GERMAN_LESSON, Chain())
    assert said == ["Bo war Bäcker.", "-"]
    assert told.leak == rate([True, False])  # Al is a baker now too
    assert told.broken == rate([False] * 5)
    assert (told.question, told.base_answer) == ("Wer war Bo?", "-")
    assert told.steered_answer == "Bo war Bäcker."
    values = {name: (s.figure.value, s.figure.n) for name, s in told.sections() if s.figure.n}
    assert values == {
        "steered": (0.5, 2),
        "neighbours_unchanged": (0.5, 2),
        "unrelated_unchanged": (1, 1),
    }
    assert [f.question for f in told.steered.failures] == ["Was war Bo?"]
    assert [f.after for f in told.neighbours.failures] == ["Al war Bäcker."]
    assert tuple(name for name, _ in told.sections()) == RATES


@pytest.fixture(scope="module")
def in_both(taught, world):
    """A report on the tiny base about a lesson that has a German side."""
    lesson = replace(LESSON, elsewhere=(GERMAN_LESSON,))
    loader = Loader(1, 1, True, "a", "a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steer_report, "LONGEST", 6)
        patch.setattr(steer_report, "PROMPTED", 1)
        return measure(taught.base, world, lesson, taught.adapter, loader, seed=1)


def test_a_report_tells_every_language_the_lessons_own_first(in_both):
    told = in_both.to_json()["by_language"]
    assert list(told) == ["en", "de"]
    for language, lesson in (("en", LESSON), ("de", GERMAN_LESSON)):
        each = told[language]
        assert set(each) == {*OWN, *RATES}
        assert set(each["failures"]) == set(RATES)
        assert each["question"] == lesson.edits[0].held_out[0]
        sizes = [each[name]["n"] for name in RATES]
        assert sizes == [2, len(lesson.neighbours), 0, 1]
        assert all(set(each[name]) == FIGURE for name in RATES)
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_the_own_language_repeats_the_reports_figures(in_both):
    told = in_both.to_json()
    own = told["by_language"]["en"]
    for name in (*OWN, *RATES):
        assert own[name] == told[name], name


def test_the_other_language_is_measured_with_the_same_adapter(in_both, taught):
    question = "Wer war Bo?"
    told = in_both.by_language["de"]
    assert told.base_answer == taught.base.ask(question, max_new_tokens=6)
    assert told.steered_answer == taught.base.ask(question, taught.adapter, max_new_tokens=6)
    assert told.steered_answer != told.base_answer


def test_a_lesson_in_one_language_has_one(taught):
    assert list(taught.report.to_json()["by_language"]) == ["en"]


def repeat(seed: int, *rates: float) -> Repeat:
    return Repeat(seed, *(rate([True] * round(10 * one) + [False] * round(10 - 10 * one))
                          for one in rates), rate([]))  # fmt: skip


def test_the_worst_seed_has_the_lowest_rate_or_none_at_all(taught):
    fine, leaks, weak = repeat(0, 0.9, 1, 1, 1), repeat(1, 1, 0.4, 1, 1), repeat(2, 0.5, 1, 1, 1)
    assert (fine.worst, leaks.worst) == (0.9, 0.4)
    report = replace(taught.report, repeats=(fine, weak, leaks))
    assert report.worst_seed == 1
    failed = Repeat.failed(3, "the loss became nan")
    assert replace(report, repeats=(failed, leaks)).worst_seed == 3
    assert failed.to_json()["fault"] == "the loss became nan"
    assert failed.to_json()["steered"]["n"] == 0
    assert taught.report.worst_seed is None
