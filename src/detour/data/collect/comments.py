"""Comments directly above statements, and the statements that they are about.

These reach to the next empty line, the next comment, the end of the first statement that has a
block of its own (`if`, `for`, `try`, ...), or the end of their block. Knows syntax trees.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise

from detour.data.collect.python_source import PythonSource
from detour.data.collect.rows import LeftOut, Row
from detour.model.examples import pair

FOR_TOOLS = re.compile(
    r"#\s*(!|-\*-|noqa|type:|pragma|pylint|pyright|mypy|ruff|isort|fmt|yapf|flake8|nosec|region|"
    r"endregion|%%|(todo|fixme|xxx|hack)\b)",
    re.IGNORECASE,
)
LETTERS = re.compile(r"[^\W\d_]")
TOLD_OTHERWISE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def comment_rows(source: PythonSource, fewest_words: int) -> Iterator[Row | LeftOut]:
    """One row for every comment that stands right above statements which are no definitions."""
    starts = _starts(source.tree)
    for first, last in _runs(source):
        statements = _below(source, starts, last)
        if not statements:
            continue
        indent = statements[0].col_offset
        above = source.piece(first, last, indent)
        place = f"{source.path}:{first}"
        words = [word for word in above.replace("#", " ").split() if LETTERS.search(word)]
        if len(words) < fewest_words or isinstance(statements[0], ast.Pass):
            yield LeftOut("tiny", place)
        elif _is_no_prose(above):
            yield LeftOut("not_prose", place)
        else:
            end = statements[-1].end_lineno or statements[-1].lineno
            code = source.piece(_first_line(statements[0]), end, indent)
            yield Row(pair(above, code, source=place), "comment")


def _starts(tree: ast.Module) -> dict[int, list[ast.stmt]]:
    """For each line on which a statement begins: it and those behind it in its block."""
    found: dict[int, list[ast.stmt]] = {}
    for node in ast.walk(tree):  # from outside to inside: of `if x: y` the whole is taken
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                for place, statement in enumerate(value):
                    found.setdefault(_first_line(statement), value[place:])
    return found


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _runs(source: PythonSource) -> Iterator[tuple[int, int]]:
    """First and last line of comments that stand together, in one column."""
    run: list[int] = []
    for line in [*sorted(source.comments), 0]:
        goes_on = run and line == run[-1] + 1 and _column(source, line) == _column(source, run[0])
        if run and not goes_on:
            yield run[0], run[-1]
            run = []
        run.append(line)


def _column(source: PythonSource, line: int) -> int:
    told = source.lines[line - 1]
    return len(told) - len(told.lstrip())


def _below(source: PythonSource, starts: Mapping[int, list[ast.stmt]], last: int) -> list[ast.stmt]:
    """The statements that a comment whose last line is this one is about."""
    behind = starts.get(last + 1, [])
    if not behind or _column(source, last) != behind[0].col_offset:
        return []
    if (
        source.lines[last].lstrip().startswith("elif")
    ):  # in the tree a statement, in code half of one
        return []
    kept = behind[:1]
    for before, statement in pairwise(behind):
        is_next = _first_line(statement) == (before.end_lineno or before.lineno) + 1
        if not is_next or _has_block(before):
            break
        kept.append(statement)
    for place, statement in enumerate(kept):
        if isinstance(statement, TOLD_OTHERWISE):
            return kept[:place]
    return kept


def _has_block(statement: ast.stmt) -> bool:
    return any(isinstance(inner, ast.stmt) for inner in ast.walk(statement) if inner != statement)


def _is_no_prose(above: str) -> bool:
    """A mark for a tool, something to be done, or code that was put out of use."""
    if any(FOR_TOOLS.match(line) for line in above.split("\n")):
        return True
    told = "\n".join(line.lstrip("#").removeprefix(" ") for line in above.split("\n"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(told)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
