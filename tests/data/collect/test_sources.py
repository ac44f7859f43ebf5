"""Which files are read, and what they are taken for."""

from pathlib import Path

import pytest

from detour.data.collect.sources import Kind, find, kind_of
from detour.errors import DataError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def names(folder: Path, kind: Kind | None = None) -> list[str]:
    return [file.name for file in find([folder], kind).files]


@pytest.mark.parametrize(
    ("there", "kind", "others"),
    [
        (("a.md", "b.rst", "c.py"), "documents", {"code": 1}),
        (("a.md", "b.py", "c.py"), "code", {"documents": 1}),
        (("a.jsonl", "b.NDJSON"), "feedback", {}),
        (("a.md", "b.py"), "documents", {"code": 1}),
        (("a.HTML", "b.png"), "documents", {}),
    ],
)
def test_the_kind_that_most_files_have(
    tmp_path: Path, there: tuple[str, ...], kind: str, others: dict[str, int]
) -> None:
    found = find([make(tmp_path, *there)])
    assert (found.kind, found.others, found.is_told) == (kind, others, False)
    assert find([tmp_path / there[0]]).kind == kind_of(Path(there[0]))


def test_files_come_in_order_and_some_folders_are_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "b/z.py", "b/a.py", "a.py", ".hidden.py", ".git/x.py", "__pycache__/x.py",
         "node_modules/x.py", "env/pyvenv.cfg", "env/x.py", "c.txt")  # fmt: skip
    assert names(tmp_path) == ["a.py", "b/a.py", "b/z.py"]
    assert names(tmp_path, "documents") == ["c.txt"]


def test_a_file_is_read_once_and_one_that_is_named_has_any_ending(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "notes.log")
    (tmp_path / "link.md").symlink_to(tmp_path / "a.md")
    assert len(find([tmp_path, tmp_path / "a.md", tmp_path]).files) == 1
    assert [f.name for f in find([tmp_path / "notes.log"], "documents").files] == ["notes.log"]
    with pytest.raises(DataError) as caught:
        find([tmp_path / "notes.log"])
    assert caught.value.found == ".log 1"
    assert caught.value.hint == "say what it is: --as documents | code | feedback"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        find([tmp_path / "gone"])
    make(tmp_path, "a.md", "b.png", "c.png")
    with pytest.raises(DataError, match="holds no file to collect from") as caught:
        find([tmp_path], "code")
    assert (caught.value.expected, caught.value.found) == (".py", ".png 2, .md 1")
