import json

import pytest

from detour.errors import MachineError
from detour.model.starter_card import starter_card, starter_folder


@pytest.fixture
def card_text(tmp_path, monkeypatch):
    """`card_text("...")`: what the packaged card holds."""
    monkeypatch.setattr("detour.model.starter_card.files", lambda package: tmp_path)
    (tmp_path / "weights").mkdir()
    return lambda written: (tmp_path / "weights" / "card.json").write_text(written, "utf-8")


def test_the_packaged_card_is_read():
    told = starter_card()
    assert told == json.loads((starter_folder() / "card.json").read_text("utf-8"))
    assert told["name"] == "starter"


@pytest.mark.parametrize("written", ["", "{", "{}", '{"bars": {}}', "[]", "null"])
def test_a_broken_card_is_told(card_text, written):
    card_text(written)
    with pytest.raises(MachineError, match="starter's card cannot be read") as caught:
        starter_card()
    assert "detour doctor" in caught.value.hint


def test_a_missing_card_is_told(card_text):
    with pytest.raises(MachineError, match="starter's card cannot be read") as caught:
        starter_card()
    assert "FileNotFoundError" in caught.value.found
