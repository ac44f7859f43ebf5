"""Rows for translation: what is judged is not what was trained, and both languages say the same."""

import json
import re
from pathlib import Path

import pytest

from detour.data.reading import read_data
from detour.model.base import Base
from detour.model.examples import Example
from detour.training.world import World
from recipes import translation


@pytest.fixture(scope="module")
def made() -> tuple[list[Example], dict[str, list[Example]]]:
    return translation.rows()


def wording(row: Example) -> tuple[str, str]:
    """The sentence that is given, and the one that is wanted."""
    return row.prompt.partition(": ")[2], row.messages[-1]["content"]


def test_what_judges_is_about_nobody_who_was_trained(made) -> None:
    trained, judged = made
    assert set(judged) == {"subjects en-de", "forms en-de", "subjects de-en", "forms de-en"}
    seen = {row.prompt for row in trained}
    told = {wording(row)[1] for row in trained}
    assert len(seen) == len(trained) == 2 * translation.TRAIN
    for rows in judged.values():
        assert len(rows) == translation.TEST
        assert not seen & {row.prompt for row in rows}
        assert not told & {wording(row)[1] for row in rows}


def test_training_rows_name_new_subjects_beside_others_only(made) -> None:
    """As often as the page says; judged rows about these are told there too."""
    trained, judged = made
    finds = {}
    for language in ("en", "de"):
        forms = {
            form: (subject.kind, subject.key)
            for subject in World.load(language).subjects
            if translation.is_new(subject)
            for form in (*subject.full, *subject.bare)
        }
        anywhere = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        finds[language] = (forms, re.compile(rf"(?<!\w)(?:{anywhere})(?!\w)"))

    def named(language: str, told: str) -> set[tuple[str, str]]:
        forms, pattern = finds[language]
        return {forms[found] for found in pattern.findall(told)}

    def source(row: Example) -> str:
        return "en" if row.prompt.startswith(translation.ASKED["en"].partition(":")[0]) else "de"

    other = {"en": "de", "de": "en"}
    beside = [named(source(r), wording(r)[0]) | named(other[source(r)], wording(r)[1])
              for r in trained]  # fmt: skip
    seen = set().union(*beside)
    assert (sum(map(bool, beside)), len(seen)) == (34, 6)
    about = [r for own in judged.values() for r in own if named(source(r), wording(r)[0]) & seen]
    assert len(about) == 43
    page = (Path(__file__).parents[2] / "docs/translation.md").read_text("utf-8")
    assert "34 of the 6,000 training rows" in page
    assert "43 of the 600 judged rows" in page


def test_no_training_row_tells_of_an_untrained_attribute(made) -> None:
    trained, judged = made
    for word in ("frisst", "schmeckt", "Kontinent"):
        assert not [row for row in trained if word in wording(row)[1].split()]
        assert [row for row in judged["forms en-de"] if word in wording(row)[1].split()]


def test_both_sentences_say_the_same(made) -> None:
    _, judged = made
    worlds = {language: World.load(language) for language in ("en", "de")}
    for name, rows in judged.items():
        source, target = (worlds[language] for language in name.partition(" ")[2].split("-"))
        subjects = {s.full.nominative: s for s in target.subjects}
        for row in rows[:40]:
            given, wanted = wording(row)
            about = [s for full, s in subjects.items() if full.casefold() in wanted.casefold()]
            twins = [source.twin(subject) for subject in about]
            named = [form for t in twins for form in (*t.full, *t.bare)]
            assert any(form.casefold() in given.casefold() for form in named), row


def test_worked_examples_are_trained_rows_of_the_same_direction(made) -> None:
    trained, judged = made
    (row,) = translation.with_shots(judged["forms de-en"][:1], trained)
    assert len(row.messages) == 2 * (translation.SHOTS + 1)
    assert row.messages[-2:] == judged["forms de-en"][0].messages
    seen = {one.prompt for one in trained}
    for message in row.messages[:-2:2]:
        assert message["content"] in seen
        assert message["content"].startswith("Übersetze ins Englische: ")


def test_the_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "TRAIN", 30)
    monkeypatch.setattr(translation, "TEST", 3)
    monkeypatch.setattr(translation, "SETTINGS", {"rank": 2, "steps": 12, "batch_size": 4})
    translation.write(tmp_path, *translation.rows())
    assert len(read_data(str(tmp_path / "forms-en-de-shots.jsonl")).train) == 3
    base = Base.load("starter")
    told = {arm: translation.run(base, tmp_path, arm) for arm in ("copy", "base", "adapter-0")}
    for figures in told.values():
        assert set(figures) == set(translation.rows()[1])
        assert figures["forms en-de"]["chrf"]["n"] == 3
    assert told["copy"] != told["base"] != told["adapter-0"]
    assert (tmp_path / "adapter-0" / "adapter_config.json").exists()
    json.dumps(told, allow_nan=False)
