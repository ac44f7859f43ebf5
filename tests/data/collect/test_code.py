"""Rows out of Python files: they mean what the file means."""

import ast
import json
from pathlib import Path

import pytest

from detour.data.collect import code
from detour.data.collect.rows import LeftOut, Row

JSON = Path(json.__file__).parent


def read(path: Path, reverse: bool = False) -> tuple[list[Row], list[LeftOut]]:
    found = list(code.reader_of(reverse)(path))
    rows = [one for one in found if isinstance(one, Row)]
    return rows, [one for one in found if isinstance(one, LeftOut)]


def pairs(rows: list[Row], kind: str) -> list[tuple[str, str]]:
    told = [row.to_json() for row in rows if row.kind == kind]
    return [(row["prompt"], row["completion"]) for row in told]


def of(folder: Path, told: str, reverse: bool = False) -> tuple[list[Row], list[LeftOut]]:
    path = folder / "a.py"
    path.write_text(told, "utf-8")
    return read(path, reverse)


def documented(path: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(path.read_text("utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return sorted((f for f in found if ast.get_docstring(f)), key=lambda f: f.lineno)


def without_docstrings(node: ast.AST) -> str:
    """The tree of a function but for what its docstring says: that is moved to the left."""
    told = ast.parse(ast.unparse(node))
    for function in ast.walk(told):
        if isinstance(function, ast.FunctionDef) and ast.get_docstring(function):
            function.body[0] = ast.Expr(ast.Constant(ast.get_docstring(function)))
    return ast.dump(told)


@pytest.mark.parametrize("path", sorted(JSON.glob("*.py")), ids=lambda path: path.stem)
def test_a_prompt_and_its_completion_are_the_function(path: Path) -> None:
    rows, _ = read(path)
    by_line = {function.lineno: function for function in documented(path)}
    for row in rows:
        if row.kind == "docstring":
            told = row.to_json()
            function = by_line[int(told["source"].rpartition(":")[2])]
            (made,) = ast.parse(f"{told['prompt']}\n{told['completion']}").body
            assert without_docstrings(made) == without_docstrings(function), told["source"]


def test_the_functions_of_json() -> None:
    rows, _ = read(JSON / "decoder.py")
    prompt, completion = pairs(rows, "docstring")[-1]
    assert prompt.startswith("def raw_decode(self, s, idx=0):\n")
    assert prompt.endswith('"""')
    assert completion == "\n".join(
        [
            "    try:",
            "        obj, end = self.scan_once(s, idx)",
            "    except StopIteration as err:",
            '        raise JSONDecodeError("Expecting value", s, err.value) from None',
            "    return obj, end",
        ]
    )
    about = dict(pairs(rows, "comment"))
    assert about["# Use speedup if available"] == "scanstring = c_scanstring or py_scanstring"


def test_the_other_way_round_is_the_docstring() -> None:
    rows, _ = read(JSON / "decoder.py", reverse=True)
    found = pairs(rows, "reverse")
    assert len(found) == len(pairs(rows, "docstring")) > 3
    bodies = [body for _, body in pairs(rows, "docstring")]
    functions = {ast.get_docstring(function) for function in documented(JSON / "decoder.py")}
    for (prompt, told), body in zip(found, bodies, strict=True):
        assert told in functions
        assert prompt.endswith(body)
        assert ast.parse(prompt).body[0].body  # code, and no docstring in it
        assert ast.get_docstring(ast.parse(prompt).body[0]) is None  # type: ignore[arg-type]


def test_strings_of_several_lines_stay_what_they_are(tmp_path: Path) -> None:
    told = '''
class A:
    @property
    def f(self):
        """Say several
        things at once."""
        x = """one
    two
            three"""

        def g():
            return f"""{x}
            four"""
        return g()
'''
    rows, _ = of(tmp_path, told)
    ((prompt, completion),) = pairs(rows, "docstring")
    assert prompt == (
        '@property\ndef f(self):\n    """Say several\n    things at once."""'
    )  # fmt: skip
    (made,) = ast.parse(f"{prompt}\n{completion}").body
    (before,) = ast.parse(told).body[0].body  # type: ignore[attr-defined]
    assert ast.dump(made.body[1]) == ast.dump(before.body[1])  # type: ignore[attr-defined]
    assert ast.dump(made.body[2]) == ast.dump(before.body[2])  # type: ignore[attr-defined]


def test_a_comment_and_what_it_is_about(tmp_path: Path) -> None:
    rows, left = of(
        tmp_path,
        """
# the numbers are squared
# before they are added
a = 1
b = a * a
c = 3  # beside the code

# a loop over all of them
for n in range(3):

    print(n)
print("after")

if a:
    # the first of two cases
    b = 2
    c = 3
# this stands above half a statement
elif b:
    pass

# about a function, which has a docstring

def f(): ...

# right above a definition
def g(): ...
x = (1,
     # inside of an expression
     2)
""",
    )
    assert pairs(rows, "comment") == [
        (
            "# the numbers are squared\n# before they are added",
            "a = 1\nb = a * a\nc = 3  # beside the code",
        ),
        ("# a loop over all of them", "for n in range(3):\n\n    print(n)"),
        ("# the first of two cases", "b = 2\nc = 3"),
    ]  # fmt: skip
    assert left == []
    assert [row.record.source.rpartition(":")[2] for row in rows] == ["2", "8", "15"]


@pytest.mark.parametrize(
    ("comment", "why"),
    [
        ("# too short", "tiny"),
        ("# -------- ======== ----", "tiny"),
        ("# x = call_of_old(code, here)", "not_prose"),
        ("# TODO make this much faster", "not_prose"),
        ("# noqa because of the tool", "not_prose"),
    ],
)
def test_comments_that_teach_nothing(tmp_path: Path, comment: str, why: str) -> None:
    rows, left = of(tmp_path, f"\n{comment}\nx = 1\n")
    assert (rows, left) == ([], [LeftOut(why, f"{tmp_path / 'a.py'}:2")])


@pytest.mark.parametrize(
    "body",
    [
        '"""Short one."""\n    return 1',
        '"""Say three words."""',
        '"""Say three words."""\n    ...',
        '"""Say three words."""\n    pass',
        '"""Say three words."""\n    raise NotImplementedError("later")',
        '"""Say three words."""; return 1',
    ],
)
def test_functions_that_teach_nothing(tmp_path: Path, body: str) -> None:
    rows, left = of(tmp_path, f"def f():\n    {body}\n")
    assert (rows, left) == ([], [LeftOut("tiny", f"{tmp_path / 'a.py'}:1")])


@pytest.mark.parametrize(
    ("name", "raw", "why", "line"),
    [
        ("a.py", b"def f(:\n", "unparsable", ":1"),
        ("a.py", b"x = 1\n  y = 2\n", "unparsable", ":2"),
        ("a.py", "x = 1\ny = 'ä'\n".encode("latin-1"), "unparsable", ":2"),
        ("a.py", b"# -*- coding: nonsense -*-\n", "unparsable", ":1"),
        ("a.py", b"x = '\0'\n", "unparsable", ":1"),
        ("a.py", b"(" * 5000, "unparsable", ":1"),
        ("a.py", b"x = 1\n" * 200_000, "huge", ""),
        ("a.py", b"# Generated by the protocol compiler.\nx = 1\n", "generated", ""),
        ("a.py", b'"""Tables.\n\nDO NOT EDIT."""\nx = 1\n', "generated", ""),
        ("api_pb2.py", b"x = 1\n", "generated", ""),
    ],
)
def test_files_that_are_left_out(
    tmp_path: Path, name: str, raw: bytes, why: str, line: str
) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    assert read(path) == ([], [LeftOut(why, f"{path}{line}")])


def test_another_encoding_that_is_declared_is_read(tmp_path: Path) -> None:
    told = '# coding: latin-1\ndef f():\n    """Größe in Metern angeben."""\n    return "ß"\n'
    (tmp_path / "a.py").write_bytes(told.encode("latin-1").replace(b"\n", b"\r\n"))
    rows, _ = read(tmp_path / "a.py")
    ((prompt, completion),) = pairs(rows, "docstring")
    assert (prompt.split("\n")[1], completion) == (
        '    """Größe in Metern angeben."""', '    return "ß"'
    )  # fmt: skip


def test_a_strange_escape_is_no_warning_of_ours(tmp_path: Path) -> None:
    rows, _ = of(tmp_path, 'def f():\n    """Match a number."""\n    return "\\d"\n')
    assert pairs(rows, "docstring") == [
        ('def f():\n    """Match a number."""', '    return "\\d"')
    ]  # fmt: skip
