"""Rows out of Python files: a docstring and the code below it, a comment and what it is about.

    docstring   a function's signature and docstring -> its body
    comment     a comment directly above statements -> these statements
    reverse     a function's signature and body -> its docstring

Knows files and syntax trees; does not know what is done with the rows.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from detour.data.collect.comments import comment_rows
from detour.data.collect.python_source import (
    PythonSource,
    Unparsable,
    decoded,
    is_generated,
    parsed,
)
from detour.data.collect.rows import LeftOut, Reader, Row
from detour.model.examples import pair

LARGEST = 2**20  # bytes of a file
FEWEST_WORDS = 3  # of a docstring or a comment
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def reader_of(reverse: bool = False) -> Reader:
    """A reader of Python files; with `reverse` also docstrings to be written for code."""

    def read(path: Path) -> Iterator[Row | LeftOut]:
        raw = path.read_bytes()
        if len(raw) > LARGEST:
            yield LeftOut("huge", str(path))
            return
        try:
            told = decoded(raw)
            if is_generated(path, told):
                yield LeftOut("generated", str(path))
                return
            source = parsed(path, told)
        except Unparsable as cause:
            yield LeftOut("unparsable", f"{path}:{cause.line}")
            return
        yield from docstring_rows(source, reverse)
        yield from comment_rows(source, FEWEST_WORDS)

    return read


def docstring_rows(source: PythonSource, reverse: bool) -> Iterator[Row | LeftOut]:
    """One row for every function with a docstring, methods and inner functions too."""
    functions = [node for node in ast.walk(source.tree) if isinstance(node, Function)]
    for function in sorted(functions, key=lambda node: node.lineno):
        told = ast.get_docstring(function)
        if told is None:
            continue
        place = f"{source.path}:{function.lineno}"
        docstring, *body = function.body
        last = docstring.end_lineno or docstring.lineno
        is_short = len(told.split()) < FEWEST_WORDS or not body or _is_trivial(body)
        if is_short or body[0].lineno <= last:  # all of it on one line
            yield LeftOut("tiny", place)
        else:
            yield from _rows_of(source, function, reverse, place)


def _rows_of(source: PythonSource, function: Function, reverse: bool, place: str) -> Iterator[Row]:
    first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
    docstring, end = function.body[0], function.end_lineno or function.lineno
    last, indent = docstring.end_lineno or docstring.lineno, function.col_offset
    moved = range(docstring.lineno, last + 1)
    above = source.piece(first, docstring.lineno - 1, indent)
    body = source.piece(last + 1, end, indent)
    yield Row(pair(source.piece(first, last, indent, moved), body, source=place), "docstring")
    if reverse:
        told = inspect.cleandoc(ast.get_docstring(function) or "")
        yield Row(pair(f"{above}\n{body}", told, source=place), "reverse")


def _is_trivial(body: list[ast.stmt]) -> bool:
    """Nothing but pass, an ellipsis, another string, or raise NotImplementedError."""
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        or (isinstance(one, ast.Raise) and "NotImplementedError" in ast.unparse(one))
        for one in body
    )
