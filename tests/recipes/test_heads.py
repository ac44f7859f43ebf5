"""Docstrings as a data set: whole files on one side, every text once, the same each time."""

from pathlib import Path

from recipes.heads.compare import Hits, table
from recipes.heads.docstrings import VERBS, documented, reading_ease, rows_of

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
    assert parts != rows_of(folder, "verb", seed=1)
    files = {split: {row["file"] for row in rows} for split, rows in parts.items()}
    assert not files["train"] & files["test"]
    assert not files["train"] & files["valid"]
    texts = [row["text"] for rows in parts.values() for row in rows]
    assert len(texts) == len(set(texts)) == 20
    assert {row["label"] for rows in parts.values() for row in rows} == set(VERBS)
    numbers = [r for rows in rows_of(folder, "lines").values() for r in rows]
    assert len(numbers) == 23  # and three that every file repeats
    assert {row["value"] for row in numbers} == {1.7918, 0.6931}  # logs of 6 and 2 lines


def test_reading_ease_of_a_known_sentence() -> None:
    # six words of one syllable each, one sentence
    assert abs(reading_ease("The cat sat on the mat.") - (206.835 - 1.015 * 6 - 84.6)) < 1e-9
    hard = reading_ease("Internationalisation necessitates interoperability considerations.")
    assert hard < reading_ease("The cat sat on the mat.")


def test_differences_are_paired() -> None:
    one = Hits([0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], ["a", "b", "c"])
    told = table([one, one])
    assert told["ours"]["value"] == 0.666667
    assert told["ours minus logistic"]["value"] == 0.333333
    assert told["ours minus peft"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 6}
