from itertools import pairwise

import pytest

from detour.errors import ConfigError, DataError
from detour.training.config import (
    FEWEST_STEPS,
    HIGHEST_RATE,
    LOWEST_RATE,
    Plan,
    TrainConfig,
    derive,
    make_config,
    rate_at,
    read_config,
)


def test_the_defaults_stand_as_documented():
    config = make_config({})
    assert (config.rank, config.alpha, config.targets) == (8, 16.0, "all-linear")
    assert (config.batch_size, config.seed, config.kl_weight) == (8, 0, 0.0)
    assert config.steps is config.epochs is config.learning_rate is None


@pytest.mark.parametrize(
    ("key", "meant"), [("learning_rat", "learning_rate"), ("step", "steps"), ("Rank", "rank")]
)
def test_an_unknown_key_is_told_with_the_nearest_one(key, meant):
    with pytest.raises(ConfigError) as caught:
        make_config({key: 1})
    assert key in caught.value.message
    assert caught.value.hint == f"did you mean {meant!r}?"
    assert "weight_decay" in caught.value.expected


def test_a_key_that_is_like_nothing_names_the_help():
    with pytest.raises(ConfigError, match="zzzzzz") as caught:
        make_config({"zzzzzz": 1})
    assert "--help" in caught.value.hint


def test_a_key_that_is_no_text_is_unknown_too():
    with pytest.raises(ConfigError, match="unknown setting 7"):
        make_config({7: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rank", 0),
        ("rank", 1025),
        ("rank", 2.5),
        ("rank", "many"),
        ("alpha", 0),
        ("alpha", float("inf")),
        ("alpha", float("nan")),
        ("steps", 0),
        ("epochs", 0),
        ("batch_size", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("warmup", 1.0),
        ("clip", 0),
        ("validation_share", 1.0),
        ("validations", 0),
        ("kl_weight", -1),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_told_by_their_name(key, value):
    with pytest.raises(ConfigError) as caught:
        make_config({key: value})
    assert caught.value.message == f"setting {key} is out of range"
    assert caught.value.expected
    assert caught.value.found == repr(value)


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(ConfigError, match="steps and epochs"):
        make_config({"steps": 3, "epochs": 1})


def test_an_own_loss_cannot_be_taken_in_parts():
    """Nobody knows how the losses of parts make up that of the whole."""
    with pytest.raises(ConfigError, match="objective and micro_batch_size exclude each other"):
        make_config({"objective": "mine.py:loss", "micro_batch_size": 2})


def test_a_learning_rate_of_zero_is_no_matter_of_configuration():
    assert make_config({"learning_rate": 0}).learning_rate == 0


@pytest.mark.parametrize(
    ("width", "rate"), [(2048, 2e-4), (1024, 4e-4), (32, HIGHEST_RATE), (16384, LOWEST_RATE)]
)
def test_the_rate_comes_from_the_width(width, rate):
    plan = derive(make_config({}), width, rows=10)
    assert plan.learning_rate == pytest.approx(rate)
    assert str(width) in plan.reasons[0]


@pytest.mark.parametrize(
    ("settings", "rows", "steps"),
    [
        ({}, 10, FEWEST_STEPS),
        ({}, 800, 300),  # three epochs of 100 steps
        ({}, 801, 303),
        ({"steps": 7}, 800, 7),
        ({"epochs": 2}, 17, 6),  # three batches of 8, 8 and 1
        ({"epochs": 0.01}, 8, 1),
        ({"epochs": 2, "batch_size": 64}, 5, 2),
    ],
)
def test_the_steps_come_from_the_data(settings, rows, steps):
    plan = derive(make_config(settings), 64, rows)
    assert plan.steps == steps
    told = [reason for reason in plan.reasons if "steps" in reason]
    assert len(told) == (0 if settings else 1)


def test_what_is_given_is_not_derived():
    plan = derive(make_config({"learning_rate": 0.5, "steps": 2}), 64, 100)
    assert plan == Plan(0.5, 2, ())


def test_the_rate_rises_then_falls_to_a_tenth():
    plan = Plan(1.0, 100, ())
    rates = [rate_at(step, plan, 0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0.1 < rates[-1] < 0.11
    assert rate_at(0, Plan(1.0, 1, ()), 0.0) == 1.0


def test_a_config_is_read_from_yaml(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("rank: 4  # small\ntargets: [q_proj, v_proj]\n", "utf-8")
    config = make_config(read_config(path))
    assert (config.rank, config.targets) == (4, ("q_proj", "v_proj"))


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "# nothing\n", "a: [1\n"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_config(path)


def test_an_empty_or_missing_config_file_is_a_data_error(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(DataError, match="does not exist"):
        read_config(path)
    path.write_text("", "utf-8")
    with pytest.raises(DataError, match="empty") as caught:
        read_config(path)
    assert caught.value.expected == "lines such as rank: 8"


def test_every_setting_explains_itself():
    assert all(field.description for field in TrainConfig.model_fields.values())
