"""Docstrings as a data set: whole files on one side, every text once, the same each time."""

from dataclasses import replace
from pathlib import Path

import pytest
from recipes.heads.compare import Hits, table
from recipes.heads.docstrings import FOLDS, VERBS, documented, reading_ease, rows_of

CODE = '''
def get_first(a):
    """Tell the first of them, please.

    More that is not read.
    """
    return a


def __get__(a):
    """This one has a name of Python's own."""


def first(a):
    """This one's name begins with no verb."""


class Getter:
    """A class is of no verb either."""


class Short:
    """Too short."""
'''


def library(tmp_path: Path) -> Path:
    (tmp_path / "test").mkdir(parents=True)
    for number, verb in enumerate(VERBS * 2):
        told = CODE.replace("the first of them", f"item {number} of all here")
        told = told.replace("get_first", f"_{verb}First")
        (tmp_path / f"m{number}.py").write_text(told)
        (tmp_path / "test" / f"t{number}.py").write_text(told.replace("item", "other"))
    return tmp_path


def test_paragraphs_of_five_words(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(CODE)
    found = list(documented(tmp_path / "m.py", "m.py"))
    assert [(one.verb, one.lines) for one in found] == [("get", 6), ("", 2), ("first", 2), ("", 2)]
    assert found[0].told == "Tell the first of them, please."


def test_no_file_stands_on_two_sides(tmp_path: Path) -> None:
    folder = library(tmp_path)
    parts = rows_of(folder, "verb")
    assert parts == rows_of(folder, "verb")
    assert parts != rows_of(folder, "verb", fold=1)
    files = {split: {row["file"] for row in rows} for split, rows in parts.items()}
    assert not files["train"] & files["test"]
    assert not files["train"] & files["valid"]
    assert not files["valid"] & files["test"]
    texts = [row["text"] for rows in parts.values() for row in rows]
    assert len(texts) == len(set(texts)) == 20
    assert {row["label"] for rows in parts.values() for row in rows} == set(VERBS)
    numbers = [r for rows in rows_of(folder, "lines").values() for r in rows]
    assert len(numbers) == 23  # and three that every file repeats
    assert {row["value"] for row in numbers} == {1.7918, 0.6931}  # logs of 6 and 2 lines


@pytest.mark.parametrize("folds", [2, FOLDS])
def test_every_file_judges_exactly_once(tmp_path: Path, folds: int) -> None:
    folder = library(tmp_path)
    (folder / "large.py").write_text(
        "".join(CODE.replace("the first of them", f"large {n} of all") for n in range(4))
    )
    parts = [rows_of(folder, "verb", fold, folds) for fold in range(folds)]
    judging = [row for one in parts for row in one["test"]]
    texts = [row["text"] for row in judging]
    assert len(texts) == len(set(texts)) == 24
    files = [{row["file"] for row in one["test"]} for one in parts]
    assert sum(map(len, files)) == len(set().union(*files)) == 21
    sizes = [len(one["test"]) for one in parts]
    assert max(sizes) - min(sizes) <= 4  # no more than the largest file
    for one in parts:
        every = [row["text"] for rows in one.values() for row in rows]
        assert sorted(every) == sorted(texts)
        assert 1 <= len(one["valid"]) < len(one["train"])
    with pytest.raises(ValueError, match="fold"):
        rows_of(folder, "verb", folds, folds)


def test_reading_ease_of_a_known_sentence() -> None:
    # six words of one syllable each, one sentence
    assert abs(reading_ease("The cat sat on the mat.") - (206.835 - 1.015 * 6 - 84.6)) < 1e-9
    hard = reading_ease("Internationalisation necessitates interoperability considerations.")
    assert hard < reading_ease("The cat sat on the mat.")


def test_differences_are_paired() -> None:
    one = Hits([0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], ["a", "b", "c"])
    told = table([one, replace(one, files=["d", "e", "e"])])
    assert told["ours"]["value"] == 0.666667
    assert told["ours minus logistic"]["value"] == 0.333333
    assert told["ours minus peft"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 6}


def test_a_file_that_judges_twice_is_refused() -> None:
    """Its rows would count as independent ones, and every interval would be too narrow."""
    one = Hits([0.0, 1.0], [1.0, 1.0], [1.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match="b judges in two folds"):
        table([one, replace(one, files=["b", "c"])])


def test_clusters_are_files() -> None:
    """All rows of a file are right or wrong together: two files, not six rows."""
    one = Hits([0.0] * 3, [1.0] * 3, [1.0] * 3, ["a"] * 3)
    other = Hits([0.0] * 3, [0.0] * 3, [0.0] * 3, ["b"] * 3)
    told = table([one, other])
    assert (told["ours"]["low"], told["ours"]["high"]) == (0.0, 1.0)
