"""Task folders: what is read, and what is refused with which words."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.hypernetwork.tiny_tasks import described, write_task

from detour.errors import DataError
from detour.hypernetwork.tasks import Tasks, read_tasks


def test_splits_and_sets(tasks: Tasks) -> None:
    assert [len(tasks.of(split)) for split in ("train", "validation", "test")] == [6, 1, 1]
    assert tasks.primitives == ("home", "loud", "soft", "work")
    assert tasks.sets == ("new frames",)
    (held,) = tasks.of("test")
    assert held.name == "work-soft"
    assert len(held.of_set()) == 9
    assert len(held.of_set("new frames")) == 3


def test_without_splits_some_are_held_out(tmp_path: Path) -> None:
    for number in range(20):
        texts = [f"Do thing {number} like this {way}" for way in range(3)]
        write_task(tmp_path, f"task{number}", {"descriptions": texts})
    one, again, other = read_tasks(tmp_path, 0), read_tasks(tmp_path, 0), read_tasks(tmp_path, 1)
    assert [len(one.of(split)) for split in ("train", "validation", "test")] == [16, 2, 2]
    names = [[task.name for task in split.of("test")] for split in (one, again, other)]
    assert names[0] == names[1] != names[2]
    assert one.every[0].primitives == (one.every[0].name,)  # a task without parts is one itself


def _broken(folder: Path, **changes: object) -> None:
    path = folder / "home" / "task.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "broken yaml": (
        lambda f: (f / "home" / "task.yaml").write_text("a: [1,\nb: 2"),
        ("home/task.yaml:3", "not YAML"),
    ),
    "broken rows": (
        lambda f: (f / "work" / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{'),
        ("work/train.jsonl:2", "not JSON"),
    ),
    "missing rows": (lambda f: (f / "work" / "test.jsonl").unlink(), ("test.jsonl", "not exist")),
    "empty description": (
        lambda f: _broken(f, descriptions=["Say it.", "  "]),
        ("home/task.yaml", "empty description"),
    ),
    "no description": (lambda f: _broken(f, descriptions=[]), ("home/task.yaml", "descriptions")),
    "unknown key": (lambda f: _broken(f, wight=2), ("home/task.yaml", "wight")),
    "part of another text": (
        lambda f: _broken(f, descriptions=[{"text": "Say it.", "parts": {"home": "the town"}}]),
        ("parts", "'the town'"),
    ),
    "part of another task": (
        lambda f: _broken(f, descriptions=[{"text": "Say it.", "parts": {"loud": "Say"}}]),
        ("parts", "'loud'"),
    ),
    "description on both sides": (
        lambda f: _broken(
            f, descriptions=["Say the  CITY.", {"text": "say the city.", "set": "new frames"}]
        ),
        ("both trains and judges", "'say the city.'", "home"),
    ),
    "phrase on both sides": (
        lambda f: _broken(
            f,
            descriptions=[
                {"text": "Say the town.", "parts": {"home": "the town"}},
                {"text": "Give the town.", "parts": {"home": "the town"}, "set": "new words"},
            ],
        ),
        ("phrase", "both trains and judges", "'the town'"),
    ),
    "row on both sides": (
        lambda f: (f / "home" / "test.jsonl").write_text(
            '{"prompt": "question  3", "completion": "x"}\n'
        ),
        ("home/test.jsonl:1", "train.jsonl"),
    ),
    "folder without a task": (lambda f: (f / "notes").mkdir(), ("without a task.yaml", "notes")),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refused(fault: str, task_folder: Callable[..., Path]) -> None:
    folder = task_folder()
    spoil, said = REFUSED[fault]
    spoil(folder)
    with pytest.raises(DataError) as caught:
        read_tasks(folder)
    assert all(part in str(caught.value) for part in said), str(caught.value)


def test_two_tasks_are_too_few(tmp_path: Path) -> None:
    for name in ("home", "work"):
        write_task(
            tmp_path, name, {"descriptions": described([name], 3, True), "primitives": [name]}
        )
    with pytest.raises(DataError, match="too few tasks"):
        read_tasks(tmp_path)


def test_no_folder_and_no_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read_tasks(tmp_path / "none")
    with pytest.raises(DataError, match="holds no task"):
        read_tasks(tmp_path)


def test_no_sentence_trains_two_tasks(task_folder: Callable[..., Path]) -> None:
    folder = task_folder()
    names = [path.parent.name for path in sorted(folder.glob("*/task.yaml"))
             if yaml.safe_load(path.read_text()).get("split", "train") == "train"]  # fmt: skip
    first, second = names[:2]
    told = yaml.safe_load((folder / first / "task.yaml").read_text())
    path = folder / second / "task.yaml"
    other = yaml.safe_load(path.read_text())
    sentence = told["descriptions"][0]
    other["descriptions"].append(sentence if isinstance(sentence, str) else sentence["text"])
    path.write_text(yaml.safe_dump(other))
    with pytest.raises(DataError, match=f"describes the tasks {first} and {second}"):
        read_tasks(folder)


def test_a_test_task_shares_no_sentence(task_folder: Callable[..., Path]) -> None:
    folder = task_folder()
    trained = yaml.safe_load((folder / "work-loud" / "task.yaml").read_text())["descriptions"]
    path = folder / "work-soft" / "task.yaml"
    told = yaml.safe_load(path.read_text())
    told["descriptions"].append(trained[0]["text"])
    path.write_text(yaml.safe_dump(told))
    # work-loud validates: what chooses the weights counts as seen
    with pytest.raises(DataError, match="both trains and judges"):
        read_tasks(folder)
