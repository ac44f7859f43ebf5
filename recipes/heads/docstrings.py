"""A real text classification set, made on the spot: what is a docstring about.

    python -m recipes.heads.docstrings work/docstrings [--regression]

The texts are the first paragraphs of the docstrings of Python's own standard library (functions,
classes, methods; five words or more, each text once). The class is one of ten topics, each a list
of modules; with `--regression` the number is the logarithm of how many lines the documented code
has. Whole files go to test, valid or train, in the order of their names' hashes, until a topic has
its share; so nothing of a test file was ever learned.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import sysconfig
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

TOPICS = {
    "concurrency": "asyncio multiprocessing threading concurrent subprocess queue selectors sched",
    "debugging": "unittest doctest bdb pdb logging trace tracemalloc cProfile profile pstats "
    "timeit warnings traceback cgitb faulthandler",
    "files": "tarfile zipfile gzip bz2 lzma pathlib shutil tempfile os ntpath posixpath "
    "genericpath fileinput _pyio glob fnmatch filecmp stat",
    "language": "lib2to3 inspect ast dis symtable pyclbr tokenize typing contextlib functools "
    "operator abc dataclasses code codeop pickletools opcode",
    "mail and markup": "email mailbox mimetypes mailcap xml html base64 quopri plistlib csv json",
    "mathematics": "_pydecimal decimal numbers fractions statistics random colorsys heapq bisect",
    "network": "http urllib ftplib imaplib smtplib nntplib poplib telnetlib ssl socket "
    "socketserver wsgiref xmlrpc ipaddress cgi webbrowser",
    "packaging": "distutils importlib pkgutil venv site sysconfig runpy ensurepip zipimport "
    "modulefinder zipapp platform",
    "types": "collections _collections_abc datetime _strptime calendar enum zoneinfo weakref types "
    "copy string textwrap difflib configparser locale gettext codecs",
    "windows": "tkinter idlelib turtle curses turtledemo",
}
TESTS = {"test", "tests", "idle_test"}
FEWEST_WORDS = 5
SPLITS = (("test", 0.25), ("valid", 0.35), ("train", 1.0))  # shares of a package, cumulated


def rows_of(library: Path, regression: bool, seed: int = 0) -> dict[str, list[dict[str, object]]]:
    """Rows by split; the same library gives the same ones."""
    found: dict[str, list[dict[str, object]]] = {name: [] for name, _ in SPLITS}
    seen: set[str] = set()
    for topic, modules in TOPICS.items():
        files = [
            (path.relative_to(library).as_posix(), list(documented(path)))
            for path in sorted(files_of(library, modules.split()), key=lambda p: _hash(p, seed))
        ]
        total, taken = sum(len(own) for _, own in files), 0
        for name, own in files:
            split = next(part for part, share in SPLITS if taken <= share * total)
            taken += len(own)
            for told, lines in own:
                if told not in seen:
                    seen.add(told)
                    answer = (
                        {"value": round(math.log(lines), 4)} if regression else {"label": topic}
                    )
                    found[split].append({"text": told, **answer, "file": name})
    return found


def files_of(library: Path, modules: list[str]) -> Iterator[Path]:
    """The Python files of modules and packages, their tests left out."""
    for module in modules:
        for path in ((library / f"{module}.py"), *(library / module).rglob("*.py")):
            if path.is_file() and not TESTS & set(path.relative_to(library).parts):
                yield path


def _hash(path: Path, seed: int) -> str:
    return sha256(f"{seed}/{path.name}".encode()).hexdigest()


def documented(path: Path) -> Iterator[tuple[str, int]]:
    """First paragraphs of docstrings, and how many lines their code has."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            told = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(told.split()) >= FEWEST_WORDS:
                yield told, (node.end_lineno or node.lineno) - node.lineno + 1


def main() -> None:
    """Write train.jsonl, valid.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--regression", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of which files judge")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    for split, rows in rows_of(
        Path(sysconfig.get_path("stdlib")), given.regression, given.seed
    ).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (given.output / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        print(f"{split}: {len(rows)} rows")


if __name__ == "__main__":
    main()
