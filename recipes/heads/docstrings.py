"""A real text classification set, made on the spot: what does the documented function do.

    python -m recipes.heads.docstrings work/docstrings [--answer verb|lines|ease] [--fold 0]

The texts are the first paragraphs of the docstrings of Python's own standard library (five words
or more, each text once). The class is the verb with which the function's name begins, of the ten
most frequent ones: `getAttribute`, `get_close_matches` and `_get_sep` are `get`. Two numbers can be
asked for instead: `lines`, the logarithm of how many lines the documented function or class has,
and `ease`, how easily the text reads (Flesch 1948; syllables are groups of vowels). Whole files go
to test, valid or train, so nothing of a test file was ever learned. The files are dealt to five
folds; each fold is the test of one split, so every file judges once, and every row is another text.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from detour.measure.metrics import normalised

Answer = Literal["verb", "lines", "ease"]
VERBS = ("add", "create", "find", "get", "is", "open", "parse", "read", "set", "write")
TESTS = {"test", "tests", "idle_test", "site-packages"}
FEWEST_WORDS = 5
LONGEST_WORD = 60  # pickletools and lib2to3 draw tables in docstrings
FOLDS = 5
VALID = 0.125  # of the rows that do not judge


@dataclass(frozen=True)
class Documented:
    """A function or class with a docstring."""

    told: str
    name: str
    is_class: bool
    lines: int
    file: str

    @property
    def verb(self) -> str:
        """The first word of a function's name; nothing for classes and `__dunders__`."""
        if self.is_class or self.name.startswith("__"):
            return ""
        word = re.match(r"_*([A-Za-z][a-z]*)", self.name)
        return word[1].lower() if word else ""


def rows_of(
    library: Path, answer: Answer, fold: int = 0, folds: int = FOLDS
) -> dict[str, list[dict[str, object]]]:
    """Rows of `test`, `valid` and `train`; the same library gives the same ones.

    Test is the fold of that number; of the others some whole files choose the checkpoint.

    Raises:
        ValueError: no such fold.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold {fold} of {folds}")
    by_file: dict[str, list[dict[str, object]]] = {}
    for one in documented_in(library):
        if answer != "verb" or one.verb in VERBS:
            row = {"text": one.told, **answered(one, answer), "file": one.file}
            by_file.setdefault(one.file, []).append(row)
    dealt = dealt_to(folds, {file: len(rows) for file, rows in by_file.items()})
    others = sorted((f for f in by_file if dealt[f] != fold), key=lambda f: _hash(f"{fold}/{f}"))
    most = VALID * sum(len(by_file[file]) for file in others)
    found: dict[str, list[dict[str, object]]] = {
        "test": [row for file in by_file if dealt[file] == fold for row in by_file[file]],
        "valid": [],
        "train": [],
    }
    for file in others:
        found["valid" if len(found["valid"]) < most else "train"] += by_file[file]
    return found


def dealt_to(folds: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """The fold of every file: the largest first, each to the fold with the fewest rows so far."""
    filled = [0] * folds
    found: dict[str, int] = {}
    for file in sorted(sizes, key=lambda name: (-sizes[name], _hash(name))):
        found[file] = filled.index(min(filled))
        filled[found[file]] += sizes[file]
    return found


def _hash(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def answered(one: Documented, answer: Answer) -> dict[str, object]:
    """The class or the number that is asked for."""
    if answer == "verb":
        return {"label": one.verb}
    value = math.log(one.lines) if answer == "lines" else reading_ease(one.told)
    return {"value": round(value, 4)}


def reading_ease(told: str) -> float:
    """206.835 - 1.015 words a sentence - 84.6 syllables a word."""
    words = re.findall(r"[A-Za-z]+", told) or [told]
    sentences = len(re.findall(r"[.!?](?=\s|$)", told)) or 1
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word.lower()))) for word in words)
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)


def documented_in(library: Path) -> Iterator[Documented]:
    """All of the library, tests left out, each text once, case and spaces aside."""
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if not TESTS & set(inside.parts):
            for one in documented(path, inside.as_posix()):
                if normalised(one.told) not in seen:
                    seen.add(normalised(one.told))
                    yield one


def documented(path: Path, file: str) -> Iterator[Documented]:
    """What of a file has a docstring of some words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            words = (ast.get_docstring(node) or "").split("\n\n")[0].split()
            if len(words) >= FEWEST_WORDS and max(map(len, words)) <= LONGEST_WORD:
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                is_class = isinstance(node, ast.ClassDef)
                yield Documented(" ".join(words), node.name, is_class, lines, file)


def main() -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--answer", choices=get_args(Answer), default="verb")
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS), help="which judges")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for split, rows in rows_of(
        Path(sysconfig.get_path("stdlib")), given.answer, given.fold
    ).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (given.output / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{split}: {len(rows)} rows")


if __name__ == "__main__":
    main()
