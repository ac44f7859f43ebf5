"""Errors that other parts raise, told in German."""

import pytest

from detour.errors import ConfigError, SlotError
from detour.language.catalogue import Catalogue, Text
from detour.slots.install import install
from detour.training.config import make_config

GERMAN = Catalogue.load("de")


@pytest.mark.parametrize(
    ("setting", "english", "german"),
    [
        ({"rank": 0}, "a number of at least 1", "eine Zahl von mindestens 1"),
        ({"rank": 4096}, "a number of at most 1024", "eine Zahl von höchstens 1024"),
        ({"alpha": 0}, "a number above 0", "eine Zahl über 0"),
        ({"warmup": 1}, "a number below 1", "eine Zahl unter 1"),
        ({"rank": []}, "a whole number", "eine ganze Zahl"),
        ({"alpha": []}, "a number", "eine Zahl"),
        ({"alpha": float("nan")}, "a finite number", "eine endliche Zahl"),
    ],
)
def test_limits_of_settings_in_words_and_in_german(setting, english, german):
    with pytest.raises(ConfigError) as ours:
        make_config(setting)
    assert ours.value.expected == english
    assert isinstance(ours.value.expected, Text)
    assert GERMAN.say(ours.value.expected) == german


@pytest.mark.parametrize(
    ("key", "value", "german"),
    [("rank", "many", "ganze Zahl"), ("rank", 1.5, "ganze Zahl"), ("alpha", "x", "eine Zahl")],
)
def test_settings_of_another_kind_are_told_in_german(key, value, german):
    with pytest.raises(ConfigError) as caught:
        make_config({key: value})
    assert german in caught.value.told(GERMAN)
    assert "valid" not in caught.value.told(GERMAN)


def test_faults_in_a_row_are_translated_one_by_one(make_model):
    slots = install(make_model("llama"))
    with pytest.raises(SlotError) as caught:
        slots.check({"none.here": None, "nor.there": None})
    told = caught.value.told(GERMAN)
    assert "2 von 2 Schichten" in told
    assert told.count("kein Slot dieses Namens") == 2
    assert str(caught.value).count("no slot of that name") == 2
