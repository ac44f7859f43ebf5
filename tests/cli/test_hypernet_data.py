"""`detour hypernet import` and `widen`, as a person calls them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hypernetwork.test_natural_instructions import instances, write_instructions
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.cli import hypernet_data
from detour.hypernetwork.tasks import read_tasks
from detour.measure.metrics import normalised
from detour.model.base import Base


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eight files as the project publishes them."""
    for number in range(8):
        write_instructions(
            tmp_path / f"source/task{number:03}_numbers.json",
            Definition=f"In this task, you are given a number. Add {number} to it, then say if "
            "what comes out is odd or even, in small letters and without any more words.",
        )
    return tmp_path / "source"


def left_behind(folder: Path) -> list[str]:
    """What lies in a folder beside the sources."""
    return sorted(path.name for path in folder.iterdir() if path.name != "source")


def test_from_files_to_tasks_that_train(detour: Callable[..., Any], source: Path) -> None:
    tasks, wide = source.parent / "tasks", source.parent / "wide"
    outcome = detour("hypernet", "import", source, "-o", tasks, "--test-rows", 10, "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert told["output"] == str(tasks)
    assert told["rows"] == {"train": 160, "test": 80}
    assert told["skipped"] == []
    assert [task["name"] for task in told["tasks"]] == [f"task{n:03}_numbers" for n in range(8)]
    assert read_tasks(tasks).sets == ()

    outcome = detour("hypernet", "widen", tasks, "-o", wide, "--hold-out-frames", "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert (told["short"], told["asked"], told["kept"], told["dropped"]) == ([], 0, 0, {})
    assert {task["after"] for task in told["tasks"]} == {64}
    found = read_tasks(wide)  # descriptions that both train and judge would be refused
    assert found.sets == ("new frames",)
    assert {len(task.of_set()) for task in found.every} == {64}
    assert {len(task.of_set("new frames")) for task in found.every} == {8}
    every = [normalised(d.text) for task in found.every for d in task.descriptions]
    assert len(set(every)) == len(every)
    assert all(d.language == "en" for task in found.every for d in task.descriptions)
    assert left_behind(source.parent) == ["tasks", "wide"]


def test_what_people_are_told(detour: Callable[..., Any], source: Path) -> None:
    broken, tasks = source / "task009_broken.json", source.parent / "tasks"
    broken.write_text("{")
    some = [*instances(), {"input": "Number: 3", "output": ["an odd one"]}]
    write_instructions(
        source / "task010_more.json",
        Definition="Say something.",
        Instances=[*some, {"input": "", "output": ["a"]}],
    )
    write_instructions(source / "task011_fr.json", Definition="Dis-le.", Output_language=["French"],
                       Instruction_language=["French"])  # fmt: skip
    call = ("hypernet", "import", source, "-o", tasks, "--skip-broken", "--rows", 12)
    outcome = detour(*call)
    assert outcome.code == 0
    assert outcome.message.startswith(f"skipped {broken}: {broken}:1 is not JSON")
    for said in (
        "10 tasks, 120 rows to learn, 150 to judge by, 1 files skipped",
        "1 inputs have several answers",
        "1 instances repeat an input",
        "1 instances lack an input",
        "fewer than 100 rows to judge by: task000_numbers, task001_numbers",
        f"Try: detour hypernet widen {tasks} -o {tasks}-wide",
    ):
        assert said in outcome.out
    outcome = detour("hypernet", "widen", tasks, "-o", f"{tasks}-wide", "--count", 70)
    assert outcome.code == 0
    assert "10 tasks, 621 descriptions made by templates, 0 by a model, 0 that" in outcome.out
    assert "fewer than 70 descriptions: task011_fr" in outcome.out
    assert outcome.out.splitlines()[-1].endswith("not its words.")


def test_self_describing_and_english(detour: Callable[..., Any], source: Path) -> None:
    write_instructions(source / "task000_numbers.json", Output_language=["French"])
    tasks = source.parent / "tasks"
    call = ("hypernet", "import", source, "-o", tasks, "--self-describing", "--english", "--json")
    told = detour(*call).json
    assert [Path(file["file"]).name for file in told["skipped"]] == ["task000_numbers.json"]
    assert told["skipped"][0]["why"] == "not from English to English"
    task = read_tasks(tasks).every[0]
    assert all(row.prompt.startswith("In this task, you") for row in (*task.train, *task.test))


@pytest.fixture
def tasks(detour: Callable[..., Any], source: Path) -> Path:
    assert detour("hypernet", "import", source, "-o", source.parent / "tasks").code == 0
    return source.parent / "tasks"


def test_a_model_that_rephrases(
    detour: Callable[..., Any],
    tmp_path: Path,
    make_model: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    file = write_instructions(tmp_path / "task001_say.json", Definition="Say it.")
    assert detour("hypernet", "import", file, "-o", tmp_path / "tasks").code == 0
    base = tmp_path / "base"
    make_model("llama", max_position_embeddings=1024).save_pretrained(base)
    tiny_tokenizer.save_pretrained(base)
    told = detour(
        "hypernet", "widen", tmp_path / "tasks", "-o", tmp_path / "wide", "--count", 3,
        "--model", base, "--device", "cpu", "--dtype", "float32", "--seed", 1, "--json",
    ).json  # fmt: skip
    assert told["asked"] == 2
    assert told["kept"] + sum(told["dropped"].values()) == 2
    assert [task["after"] for task in told["tasks"]] == [3]


def test_what_a_model_says_is_kept(
    tasks: Path, detour: Callable[..., Any], tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detour.hypernetwork import widen

    def asker(_base: Base, _seed: int) -> widen.Asker:
        return lambda prompts: [f"{p.splitlines()[-1]} {n} words" for n, p in enumerate(prompts)]

    monkeypatch.setattr(hypernet_data, "load_base", lambda *_: tiny_base)
    monkeypatch.setattr(widen, "asker_of", asker)
    call = ("hypernet", "widen", tasks, "-o", tasks.parent / "wide", "--count", 4)
    outcome = detour(*call, "--model", "mine")
    assert "mine: 24 of 24 rephrasings kept; dropped: none" in outcome.out
    assert "0 descriptions made by templates, 24 by a model" in outcome.out
    assert "not its words" not in outcome.out
    assert read_tasks(tasks.parent / "wide").every[0].descriptions[-1].text.endswith(" 2 words")


def test_what_import_refuses(fails: Callable[..., dict[str, str]], source: Path) -> None:
    folder = source.parent
    call = ("hypernet", "import", source, "-o")
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full" / "mine").write_text("mine")
    for name, found in (("file", "a file"), ("full", "a folder with other files")):
        told = fails(2, *call, folder / name)
        assert "is there already and is not empty" in told["error"]
        assert told["found"] == found
        assert told["hint"]
    assert (folder / "full/mine").read_text() == "mine"
    before = left_behind(folder)

    told = fails(2, "hypernet", "import", folder / "none", "-o", folder / "tasks")
    assert "none does not exist" in told["error"]
    write_instructions(source / "task004_numbers.json", Definition=None)
    told = fails(2, *call, folder / "tasks")  # three tasks stood already
    assert "task004_numbers.json has no Definition" in told["error"]
    assert told["expected"]
    write_instructions(source / "more/TASK005_numbers.json", Definition="Else.")
    (source / "task004_numbers.json").unlink()
    told = fails(2, *call, folder / "tasks")
    assert "would make a task that is there already" in told["error"]
    assert "--skip-broken" in told["hint"]
    fails(2, *call, folder / "tasks", "--rows", 0)
    fails(2, *call, folder / "tasks", "--test-rows", "many")
    assert left_behind(folder) == before  # nothing half-written, nothing hidden


def test_what_widen_refuses(fails: Callable[..., dict[str, str]], tasks: Path) -> None:
    folder = tasks.parent
    before = {path: path.read_bytes() for path in tasks.rglob("*.*l")}
    told = fails(2, "hypernet", "widen", tasks, "-o", tasks)
    assert "is there already and is not empty" in told["error"]
    told = fails(2, "hypernet", "widen", tasks, "-o", tasks / "wide")
    assert "wide lies inside the tasks" in told["error"]
    assert str(tasks) in told["expected"]
    told = fails(2, "hypernet", "widen", folder / "none", "-o", folder / "wide")
    assert "none is no folder" in told["error"]
    told = fails(2, "hypernet", "widen", folder / "source", "-o", folder / "wide")
    assert "source holds no task" in told["error"]
    told = fails(2, "hypernet", "widen", tasks, "-o", folder / "wide", "--model", folder / "none")
    assert "none" in told["error"]
    fails(2, "hypernet", "widen", tasks, "-o", folder / "wide", "--count", 0)
    (tasks / "task003_numbers/test.jsonl").unlink()
    told = fails(2, "hypernet", "widen", tasks, "-o", folder / "wide")
    assert "task003_numbers/test.jsonl does not exist" in told["error"]
    assert left_behind(folder) == ["tasks"]
    del before[tasks / "task003_numbers/test.jsonl"]
    assert {path: path.read_bytes() for path in tasks.rglob("*.*l")} == before


def test_an_empty_folder_is_filled(detour: Callable[..., Any], source: Path) -> None:
    (source.parent / "tasks").mkdir()
    outcome = detour("hypernet", "import", source / "task000_numbers.json", "-o",
                     source.parent / "tasks")  # fmt: skip
    assert outcome.code == 0
    assert [path.name for path in (source.parent / "tasks").iterdir()] == ["task000_numbers"]


def test_errors_are_told_in_german(
    detour: Callable[..., Any], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETOUR_LANG", "de")
    write_instructions(source / "task004_numbers.json", Instances=None)
    outcome = detour("hypernet", "import", source, "-o", source.parent / "tasks")
    assert "hat keine Instances; erwartet: eine Liste von" in outcome.message
    assert "Tipp: --skip-broken lässt unbrauchbare Dateien aus" in outcome.message
