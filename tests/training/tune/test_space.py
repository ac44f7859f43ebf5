"""What may vary: files that are understood, files that are not, and the usual space."""

import pytest

from detour.errors import ConfigError
from detour.training.tune.space import Choice, Range, read_space, usual

GOOD = """
rank: [4, 8, 16]
learning_rate: {low: 2e-4, high: 0.01, log: true}
steps: {low: 40, high: 165, step: 20}
targets: [all-linear, [q_proj, v_proj]]
dora: [false, true]
warmup: 0.05
rank_pattern: {q_proj: 2}
"""


@pytest.fixture
def space(tmp_path):
    def read(told):
        (tmp_path / "space.yaml").write_text(told)
        return read_space(tmp_path / "space.yaml")

    return read


def test_choices_ranges_and_what_is_fixed(space):
    found = space(GOOD)
    assert dict(found.searched) == {
        "rank": Choice((4, 8, 16)),
        "learning_rate": Range(0.0002, 0.01, log=True),
        "steps": Range(40, 160, step=20, whole=True),  # 165 is on no step
        "targets": Choice(("all-linear", ("q_proj", "v_proj"))),
        "dora": Choice((False, True)),
    }
    assert dict(found.fixed) == {"warmup": 0.05, "rank_pattern": {"q_proj": 2}}
    assert found.targets == ["all-linear", ("q_proj", "v_proj")]
    assert found.searched["targets"].labels == ("all-linear", "q_proj,v_proj")
    assert found.to_json()["targets"] == ["all-linear", ["q_proj", "v_proj"]]


def test_one_list_of_layers_is_no_choice(space):
    found = space("targets: [q_proj, v_proj]\nrank: [1, 2]")
    assert found.fixed == {"targets": ("q_proj", "v_proj")}
    assert found.targets == [("q_proj", "v_proj")]


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (Choice((4, 8)), [4, 8], [5, None]),
        (Choice(("all-linear", ("a", "b"))), ["all-linear", ("a", "b")], ["a", ("a",)]),
        (Range(0.1, 0.5), [0.1, 0.25, 0.5], [0.6, None, "0.2"]),
        (Range(40, 160, step=20, whole=True), [40, 60, 160], [50, 180]),
    ],
)
def test_what_lies_within(dimension, inside, outside):
    assert [dimension.holds(value) for value in inside] == [True] * len(inside)
    assert [dimension.holds(value) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("rang: [4, 8]", "unknown setting 'rang'.*did you mean 'rank'"),
        ("rank: 4", "lets nothing vary"),
        ("rank: [0, 4]", "setting rank is out of range"),
        ("rank: [4, 4]", "not two different values"),
        ("rank: [4]", "not two different values"),
        ("rank: {low: 4}", "range of rank is not understood.*low and high"),
        ("rank: {low: 4, high: 8, stepp: 2}", "range of rank is not understood"),
        ("rank: {low: 8, high: 4}", "low below high"),
        ("rank: {low: 4.5, high: 8}", "setting rank is out of range"),
        ("rank: {low: 4, high: 8, step: 1.5}", "a step above 0"),
        ("rank: {low: 4, high: 8, step: big}", "a step that is a number"),
        ("rank: {low: 4, high: 8, step: -1}", "a step above 0 and at most 4"),
        ("rank: {low: 4, high: 8, log: 1}", "log true or false"),
        ("warmup: {low: 0, high: 0.5, log: true}", "low above 0"),
        ("alpha: {low: 4, high: 8, log: true, step: 1}", "with log no step"),
        ("learning_rate: {low: fast, high: 1}", "setting learning_rate is out of range"),
        ("dora: {low: 0, high: 1}", "dora has no range"),
        ("targets: {low: 0, high: 1}", "targets has no range"),
        ("patience: [2, 3]", "patience cannot be searched"),
        ("objective: own.py:loss\nrank: [1, 2]", "objective is the search's own"),
        ("seed: [1, 2]", "seed is the search's own"),
        ("steps: [10, 20]\nepochs: 2", "exclude each other"),
        ("- rank", "is not a mapping"),
        ("rank: [", "is not YAML"),
    ],
)
def test_files_that_make_no_sense(space, told, message):
    with pytest.raises(ConfigError, match=message) as caught:
        space(told)
    assert "space.yaml" in str(caught.value)


def test_the_usual_space_lies_around_the_default():
    found = usual(0.0015, 60, (("attn.q", "attn.v"), ("mlp.up",)))
    default = {"learning_rate": 0.0015, "steps": 60, "rank": 8, "alpha": 16.0, "batch_size": 8,
               "targets": "all-linear"}  # fmt: skip
    assert found.searched.keys() == default.keys()
    assert all(found.searched[name].holds(value) for name, value in default.items())
    assert "targets" not in usual(0.0015, 60, (("attn.q",),)).searched
