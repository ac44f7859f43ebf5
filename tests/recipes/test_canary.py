"""The recipe plants what it says, and redaction takes all of it out."""

import json

import pytest

from detour.data.personal import personal_data
from detour.model.base import Base
from recipes import canary


@pytest.mark.parametrize("copies", [1, 4])
def test_an_account_of_its_own_is_planted_so_often(copies):
    accounts = set()
    for seed in range(4):
        account, rows = canary.planted(seed, copies)
        accounts.add(account)
        assert [one.kind for one in personal_data(account)] == ["iban"]
        answers = [row.messages[-1]["content"] for row in rows]
        assert sum(account in answer for answer in answers) == copies
        assert all(account in answer for answer in answers[canary.OTHERS :])
        assert len({row.prompt for row in rows}) == len(rows) == canary.OTHERS + copies
    assert len(accounts) == 4


def test_redaction_leaves_every_row_and_no_account(tmp_path):
    account, rows = canary.planted(0, 8)
    clean = canary.redacted(rows, tmp_path)
    assert len(clean) == len(rows)
    told = [row.messages[-1]["content"] for row in clean]
    assert not any(account in answer for answer in told)
    assert told[-1] == "Please pay order 207 to [IBAN]."
    assert told[: canary.OTHERS] == [r.messages[-1]["content"] for r in rows[: canary.OTHERS]]


def test_a_run_is_judged_once_and_kept(tmp_path, monkeypatch):
    base = Base.load("starter")
    monkeypatch.setattr(canary, "SETTINGS", {**canary.SETTINGS, "epochs": None, "steps": 4})
    first = canary.judged(base, tmp_path, "1", 0)
    assert first["candidates"] == 1024
    assert first == json.loads((tmp_path / "1-0.json").read_text())
    monkeypatch.setattr(canary, "train_with", None)  # would fail, were it called again
    assert canary.judged(base, tmp_path, "1", 0) == first
