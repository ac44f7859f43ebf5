"""Docstrings as a data set: whole files on one side, every text once, the same each time."""

from pathlib import Path

from recipes.heads.compare import Hits, table
from recipes.heads.docstrings import PACKAGES, documented, rows_of

CODE = '''
def first(a):
    """Tell the first of them, please.

    More that is not read.
    """
    return a


class Short:
    """Too short."""
'''


def library(tmp_path: Path) -> Path:
    for package in PACKAGES:
        (tmp_path / package / "test").mkdir(parents=True)
        for number in range(8):
            told = CODE.replace("the first of them", f"item {number} of {package} here")
            (tmp_path / package / f"m{number}.py").write_text(told)
            (tmp_path / package / "test" / f"t{number}.py").write_text(told + "# a test")
    return tmp_path


def test_paragraphs_of_five_words(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(CODE)
    assert list(documented(tmp_path / "m.py")) == [("Tell the first of them, please.", 6)]


def test_no_file_stands_on_two_sides(tmp_path: Path) -> None:
    folder = library(tmp_path)
    parts = rows_of(folder, regression=False)
    assert parts == rows_of(folder, regression=False)
    assert parts != rows_of(folder, regression=False, seed=1)
    files = {split: {row["file"] for row in rows} for split, rows in parts.items()}
    assert not files["train"] & files["test"]
    assert not files["train"] & files["valid"]
    texts = [row["text"] for rows in parts.values() for row in rows]
    assert len(texts) == len(set(texts)) == 80
    assert {row["label"] for row in parts["train"]} == set(PACKAGES)
    numbers = rows_of(folder, regression=True)
    assert {row["value"] for row in numbers["test"]} == {1.7918}  # log of 6 lines


def test_differences_are_paired() -> None:
    one = Hits([0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [1.0, 1.0, 0.0], ["a", "b", "c"])
    told = table([one, one])
    assert told["ours"]["value"] == 0.666667
    assert told["ours minus logistic"]["value"] == 0.333333
    assert told["ours minus peft"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 6}
