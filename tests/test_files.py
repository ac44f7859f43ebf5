"""Files and folders are whole at every moment, whatever interrupts their writing."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detour.errors import StorageError
from detour.files import check_writable, replace_folder_atomically, write_text_atomically
from detour.state_file import write_state


def fill(text):
    return lambda folder: (folder / "file").write_text(text)


@pytest.fixture
def folder(tmp_path):
    """A folder that was written before."""
    replace_folder_atomically(tmp_path / "adapter", fill("old"))
    return tmp_path / "adapter"


def break_rename(monkeypatch, number, error, after=False):
    """Raise at the nth rename, before it is done or right after."""
    genuine, calls = Path.rename, []

    def rename(self, target):
        calls.append(target)
        if len(calls) == number and not after:
            raise error
        result = genuine(self, target)
        if len(calls) == number:
            raise error
        return result

    monkeypatch.setattr(Path, "rename", rename)


def test_a_folder_is_replaced_and_nothing_is_left_beside(folder):
    replace_folder_atomically(folder, fill("new"))
    assert (folder / "file").read_text() == "new"
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "full"), StorageError)],
)
def test_an_interrupted_replacement_leaves_one_whole_folder(
    folder, monkeypatch, number, after, error, raised
):
    with monkeypatch.context() as patch:
        break_rename(patch, number, error, after)
        with pytest.raises(raised):
            replace_folder_atomically(folder, fill("new"))
    stands = "new" if (number, after) == (2, True) else "old"
    assert (folder / "file").read_text() == stands
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_what_cannot_be_put_back_is_not_removed(folder, monkeypatch):
    genuine = Path.rename
    monkeypatch.setattr(
        Path, "rename",
        lambda self, target: genuine(self, target) if self == folder else _refuse(),
    )  # fmt: skip
    with pytest.raises(StorageError):
        replace_folder_atomically(folder, fill("new"))
    assert [path.read_text() for path in folder.parent.rglob("file")] == ["old"]


def _refuse():
    raise OSError(5, "no")


def test_a_folder_that_cannot_be_filled_changes_nothing(folder):
    with pytest.raises(ZeroDivisionError):
        replace_folder_atomically(folder, lambda _: 1 / 0)
    assert (folder / "file").read_text() == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


@pytest.mark.parametrize("name", ["new", "deep/er/new", "adapter"])
def test_a_writable_place_is_left_as_it_was(folder, name):
    check_writable(folder.parent / name)
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file/new", "file/deeper/new", "n" * 300])
def test_an_unwritable_place_is_told(tmp_path, name):
    write_text_atomically(tmp_path / "file", "in the way")
    with pytest.raises(StorageError, match="could not be written"):
        check_writable(tmp_path / name)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may be longer than 10 kB, as where the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_where_safetensors_writes_too(tmp_path: Path) -> None:
    """Its error is none of the operating system's."""
    tensors = {"a": torch.zeros(10_000)}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").write_text("there")
    with pytest.raises(StorageError, match="could not be written") as caught:
        replace_folder_atomically(
            tmp_path / "model", lambda folder: save_file(tensors, folder / "model.safetensors")
        )
    assert caught.value.found
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]
    with pytest.raises(StorageError):
        write_state(tmp_path, {}, {}, tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
