"""One Python file: its lines, its tree, and pieces of it that mean the same further to the left.

Knows the standard library's parser; does not know what the pieces are for.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path

HEAD = 20  # lines in which a generated file says so
GENERATED_NAME = re.compile(r".*_pb2(_grpc)?\.py")
GENERATED = re.compile(
    r"@generated\b|\bdo not (edit|modify)\b|\bauto(matically)?[ -]?generated\b", re.IGNORECASE
)
GENERATED_COMMENT = re.compile(r"^\s*#.*\bgenerated (by|from|with|using)\b", re.IGNORECASE)


class Unparsable(Exception):
    """Python cannot read the file; the line is its message."""

    def __init__(self, line: int = 1) -> None:
        super().__init__(line)
        self.line = line


@dataclass(frozen=True)
class PythonSource:
    """A file that Python can read."""

    path: Path
    lines: tuple[str, ...]
    tree: ast.Module
    comments: frozenset[int]
    """Lines that are nothing but a comment."""
    inside: frozenset[int]
    """Lines that begin within a string: moved to the left, they would say something else."""

    def piece(self, first: int, last: int, indent: int, moved: range = range(0)) -> str:
        """Lines `first` to `last`, `indent` columns further to the left.

        Lines within strings stay where they are, but for those in `moved`: a docstring's.
        """
        kept = [
            line
            if number in self.inside and number not in moved
            else line[min(indent, len(line) - len(line.lstrip())) :]
            for number, line in enumerate(self.lines[first - 1 : last], start=first)
        ]
        return "\n".join(line if line.strip() else "" for line in kept).strip("\n")


def is_generated(path: Path, told: str) -> bool:
    """Whether its name or its first lines say that a program wrote it."""
    head = told.split("\n", HEAD)[:HEAD]
    told_so = any(GENERATED.search(line) or GENERATED_COMMENT.search(line) for line in head)
    return told_so or GENERATED_NAME.fullmatch(path.name) is not None


def decoded(raw: bytes) -> str:
    """As Python decodes it: UTF-8, or what its first lines declare. Raises Unparsable."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return io.TextIOWrapper(io.BytesIO(raw), encoding).read()
    except UnicodeDecodeError as cause:
        raise Unparsable(raw.count(b"\n", 0, cause.start) + 1) from cause
    except (SyntaxError, LookupError) as cause:
        raise Unparsable from cause


def parsed(path: Path, told: str) -> PythonSource:
    """The file as Python understands it. Raises Unparsable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's strings
            tree = ast.parse(told)
        tokens = list(tokenize.generate_tokens(io.StringIO(told).readline))
    except SyntaxError as cause:
        raise Unparsable(cause.lineno or 1) from cause
    except (ValueError, RecursionError, MemoryError, tokenize.TokenError) as cause:
        raise Unparsable from cause
    lines = tuple(told.split("\n"))
    comments = frozenset(
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
    )
    return PythonSource(path, lines, tree, comments, _inside(tokens))


def _inside(tokens: list[tokenize.TokenInfo]) -> frozenset[int]:
    found: set[int] = set()
    begun: list[int] = []  # f-strings are several tokens from Python 3.12 on
    for token in tokens:
        name = tokenize.tok_name[token.type]
        if name == "STRING":
            found.update(range(token.start[0] + 1, token.end[0] + 1))
        elif name.endswith("STRING_START"):
            begun.append(token.start[0])
        elif name.endswith("STRING_END"):
            found.update(range(begun.pop() + 1, token.end[0] + 1))
    return frozenset(found)
