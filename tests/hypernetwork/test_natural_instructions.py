"""Super-NaturalInstructions: what becomes of a file, and what is refused with which words."""

import json
import tempfile
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from detour.errors import DataError
from detour.hypernetwork.natural_instructions import (
    ImportConfig,
    Imported,
    files_of,
    import_tasks,
    read_instructions,
    split_rows,
)
from detour.hypernetwork.tasks import read_task
from detour.measure.metrics import normalised

DEFINITION = "In this task, you are given a number. You need to say whether it is even or odd."


def instances(count: int = 30) -> list[dict[str, Any]]:
    return [
        {"id": f"task001-{n}", "input": f"Number: {n}", "output": ["odd" if n % 2 else "even"]}
        for n in range(count)
    ]


def instructions(**changes: Any) -> dict[str, Any]:
    """A file as the project publishes them; `None` leaves a key out."""
    told = {
        "Contributors": ["Ada Example"],
        "Source": ["synthetic"],
        "URL": ["https://example.org/numbers"],
        "Categories": ["Mathematics"],
        "Reasoning": [],
        "Definition": [DEFINITION],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Mathematics"],
        "Positive Examples": [{"input": "Number: 2", "output": "even", "explanation": "2 = 2·1"}],
        "Negative Examples": [{"input": "Number: 3", "output": "even", "explanation": "It is odd"}],
        "Instances": instances(),
        "Instance License": ["Apache 2.0"],
    }
    return {key: value for key, value in {**told, **changes}.items() if value is not None}


def write_instructions(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(instructions(**changes), indent=4, ensure_ascii=False), "utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """`file(Definition="…")` writes tmp_path/task001_parity.json."""
    return lambda **changes: write_instructions(tmp_path / "task001_parity.json", **changes)


def imported(source: Path, **config: Any) -> tuple[Imported, Path]:
    """Import into an empty folder of its own."""
    folder = Path(tempfile.mkdtemp(dir=source.parent, prefix="tasks"))
    return import_tasks(source, folder, ImportConfig(**config)), folder


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_file_becomes_a_task(file: Callable[..., Path]) -> None:
    made, folder = imported(file())
    told = yaml.safe_load((folder / "task001_parity/task.yaml").read_text("utf-8"))
    assert told == {
        "descriptions": [{"text": DEFINITION, "language": "en"}],
        "metric": "exact_match",
        "licence": "Apache 2.0",
        "source": "Super-NaturalInstructions, task001_parity: synthetic, "
        "https://example.org/numbers",
    }
    task, split = read_task(folder / "task001_parity")
    assert split is None
    assert (len(task.train), len(task.test)) == (15, 15)  # never more than half judge
    prompts = {row.prompt for row in (*task.train, *task.test)}
    assert prompts == {f"Number: {n}" for n in range(30)}  # instances, no examples, no definition
    assert made.to_json() == {
        "tasks": [{"name": "task001_parity", "train": 15, "test": 15, "several_answers": 0,
                   "repeated": 0, "unusable": 0}],
        "rows": {"train": 15, "test": 15},
        "skipped": [],
    }  # fmt: skip


def test_older_files_hold_one_text_where_newer_ones_hold_a_list(file: Callable[..., Path]) -> None:
    old = [{"input": f"Number: {n}", "output": "even"} for n in range(10)]
    told = read_instructions(
        file(Definition=f" {DEFINITION} ", Instances=old, Source="a", URL=None,
             Instruction_language=None, **{"Instance License": None})
    )  # fmt: skip
    assert told.definitions == (DEFINITION,)
    assert {row.answers for row in told.rows} == {("even",)}
    assert (told.language, told.licence) == ("", "")
    assert told.source == "Super-NaturalInstructions, task001_parity: a"


@pytest.mark.parametrize(
    ("spoken", "language"), [(["English"], "en"), (["German"], "de"), (["Igbo"], "igbo")]
)
def test_the_language_of_the_definition(
    spoken: list[str], language: str, file: Callable[..., Path]
) -> None:
    assert read_instructions(file(Instruction_language=spoken)).language == language


def test_a_definition_that_stands_twice_is_one_description(file: Callable[..., Path]) -> None:
    told = read_instructions(file(Definition=["Say it.", "say  it.", "", "Tell it."]))
    assert told.definitions == ("Say it.", "Tell it.")


def test_the_split_does_not_depend_on_the_order_or_the_number_of_rows(
    file: Callable[..., Path],
) -> None:
    config = ImportConfig(rows=5, test_rows=6)
    learned, judged = split_rows(read_instructions(file()), config)
    assert (len(learned), len(judged)) == (5, 6)
    turned = read_instructions(file(Instances=instances()[::-1]))
    assert split_rows(turned, config) == (learned, judged)
    more, same = split_rows(turned, ImportConfig(rows=500, test_rows=6))
    assert same == judged
    assert more[:5] == learned
    assert len(more) == 24
    assert not set(more) & set(judged)
    others, many = split_rows(turned, ImportConfig(rows=5, test_rows=15))
    assert others == learned  # nor does a row that was learned judge, while there are enough
    assert many[:6] == judged
    fewer, _ = split_rows(read_instructions(file(Instances=instances()[:29])), config)
    assert len(set(fewer) & set(learned)) >= 4  # a row that goes leaves the others where they are


def test_self_describing_rows_begin_with_the_definition(file: Callable[..., Path]) -> None:
    _, folder = imported(file(Definition=[DEFINITION, "Odd or even?"]), self_describing=True)
    learned = rows(folder / "task001_parity/train.jsonl")
    assert all(row["prompt"].startswith(f"{DEFINITION}\n\nNumber: ") for row in learned)


def test_several_answers_are_learned_with_the_first_and_never_judge(
    file: Callable[..., Path],
) -> None:
    some = instances(40)
    for n in range(0, 40, 2):
        some[n]["output"] = ["even", "an even one"]
    some[1]["output"] = ["odd", " odd\n"]  # the same answer for the metric
    made, folder = imported(file(Instances=some))
    judged = rows(folder / "task001_parity/test.jsonl")
    assert len(judged) == 20
    assert {row["completion"] for row in judged} == {"odd"}
    learned = rows(folder / "task001_parity/train.jsonl")
    assert {row["completion"] for row in learned} == {"even"}
    assert made.tasks[0].several_answers == 20


def test_an_input_that_occurs_twice_is_taken_once(file: Callable[..., Path]) -> None:
    again = [
        {"input": "NUMBER:  7", "output": ["odd"]},
        {"input": "number: 8", "output": ["eight"]},
    ]
    made, folder = imported(file(Instances=instances() + again))
    task = made.tasks[0]
    assert (task.train + task.test, task.repeated, task.several_answers) == (30, 2, 1)
    name = folder / "task001_parity"
    prompts = [row["prompt"] for part in ("train", "test") for row in rows(name / f"{part}.jsonl")]
    assert len({normalised(prompt) for prompt in prompts}) == len(prompts) == 30
    assert "Number: 8" in [row["prompt"] for row in rows(name / "train.jsonl")]


def test_what_cannot_be_learned_is_left_out_and_counted(file: Callable[..., Path]) -> None:
    bad = [
        {"input": "  ", "output": ["a"]},
        {"input": "x", "output": [" "]},
        {"input": "y", "output": []},
        {"input": "\ud800", "output": ["a"]},
        {"input": "z", "output": ["\udfff"]},
    ]
    path = file()
    path.write_text(json.dumps(instructions(Instances=instances() + bad)))  # escaped halves
    made, _ = imported(path)
    assert (made.tasks[0].train + made.tasks[0].test, made.tasks[0].unusable) == (30, 5)


def test_english_keeps_english_to_english(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_instructions(source / "en.json")
    for name, changes in {
        "to": {"Output_language": ["German"]},
        "from": {"Input_language": ["English", "German"]},
        "none": {"Input_language": None},
    }.items():
        write_instructions(source / f"{name}.json", Definition=f"Do {name}.", **changes)
    made, folder = imported(source, english=True)
    assert [task.name for task in made.tasks] == ["en"]
    assert {Path(file.file).stem for file in made.skipped} == {"to", "from", "none"}
    assert {file.why for file in made.skipped} == {"not from English to English"}
    assert [path.name for path in folder.iterdir()] == ["en"]
    with pytest.raises(DataError, match=r"yields no task.*not from English"):
        imported(source / "to.json", english=True)


REFUSED: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("is empty", "one JSON object")),
    "not JSON": ('{\n"Definition": "Say it.",\n]', (":3", "is not JSON", "column 1")),
    "a huge number": ("1" * 5000, ("is not JSON",)),
    "another object": ("[1, 2]", ("is not a JSON object", "found list")),
    "no definition": (json.dumps(instructions(Definition=None)), ("no Definition", "None")),
    "blank definition": (json.dumps(instructions(Definition=[" "])), ("no Definition", "[' ']")),
    "definition of a number": (json.dumps(instructions(Definition=7)), ("no Definition", "7")),
    "no instances": (json.dumps(instructions(Instances=None)), ("no Instances", '"input": text')),
    "empty instances": (json.dumps(instructions(Instances=[])), ("no Instances", "[]")),
    "instances by name": (json.dumps(instructions(Instances={"a": 1})), ("no Instances", "'a'")),
    "no output": (
        json.dumps(instructions(Instances=[*instances(3), {"input": "Number: 9"}])),
        ("instance 4 cannot be read", '"output" as a list', "Number: 9"),
    ),
    "a number as output": (
        json.dumps(instructions(Instances=[{"input": "a", "output": [1]}])),
        ("instance 1 cannot be read",),
    ),
    "a text as instance": (
        json.dumps(instructions(Instances=["a"])),
        ("instance 1 cannot be read", "'a'"),
    ),
    "too few": (
        json.dumps(instructions(Instances=instances(9))),
        ("too few instances", "at least 10", "found 9"),
    ),
    "too few that differ": (
        json.dumps(instructions(Instances=instances(9) * 4)),
        ("too few instances", "found 9"),
    ),
    "too few with one answer": (
        json.dumps(
            instructions(
                Instances=[
                    *instances(4),
                    *({"input": str(n), "output": ["a", "b"]} for n in range(20)),
                ]
            )
        ),
        ("only one answer", "at least 5", "found 4"),
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused(fault: str, tmp_path: Path) -> None:
    content, said = REFUSED[fault]
    path = tmp_path / "source/task002_broken.json"
    write_instructions(tmp_path / "source/task001_good.json", Definition="Say something else.")
    path.write_text(content)
    folder = tmp_path / "tasks"
    folder.mkdir()
    with pytest.raises(DataError) as caught:
        import_tasks(path, folder, ImportConfig(skip_broken=True))  # alone there is no other
    for each in (str(path), *said):
        assert each in str(caught.value)
    assert "yields no task" not in str(caught.value)
    assert not list(folder.iterdir())

    with pytest.raises(DataError) as caught:
        import_tasks(tmp_path / "source", folder, ImportConfig())
    assert str(path) in str(caught.value)
    assert caught.value.hint

    made, folder = imported(tmp_path / "source", skip_broken=True)
    assert [task.name for task in made.tasks] == ["task001_good"]
    assert [file.file for file in made.skipped] == [str(path)]
    assert said[0].lstrip(":") in made.skipped[0].why
    assert [place.name for place in folder.iterdir()] == ["task001_good"]


def test_a_broken_file_of_a_folder_can_be_skipped(tmp_path: Path) -> None:
    write_instructions(tmp_path / "source/a.json", Instances=None)
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "source")
    assert caught.value.hint == "--skip-broken leaves out files that cannot be used"
    with pytest.raises(DataError, match=r"yields no task.*1 skipped, the first: .*no Instances"):
        imported(tmp_path / "source", skip_broken=True)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        imported(tmp_path / "none.json")


def test_two_tasks_of_one_definition_would_meet_in_a_split(tmp_path: Path) -> None:
    write_instructions(tmp_path / "source/a.json")
    write_instructions(tmp_path / "source/b.json", Definition=["Else.", DEFINITION.upper()])
    write_instructions(tmp_path / "source/c.json", Definition="Else.")
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "source")
    assert "b.json has the definition of another task" in str(caught.value)
    assert str(tmp_path / "source/a.json") in caught.value.found
    made, _ = imported(tmp_path / "source", skip_broken=True)
    assert [task.name for task in made.tasks] == ["a", "c"]  # what is left out owns nothing


def test_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no JSON file"):
        files_of(tmp_path)
    write_instructions(tmp_path / ".git/old.json")
    write_instructions(tmp_path / "b.json")
    write_instructions(tmp_path / "more/a.json")
    (tmp_path / "README.md").write_text("Tasks")
    assert files_of(tmp_path) == [tmp_path / "b.json", tmp_path / "more/a.json"]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    write_instructions(tmp_path / "source/b.json")
    write_instructions(tmp_path / "source/more/B.json", Definition="Something else.")
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "source")
    assert "more/B.json would make a task that is there already" in str(caught.value)
    assert caught.value.found == str(tmp_path / "source/b.json")
    assert "--skip-broken" in caught.value.hint
    made, _ = imported(tmp_path / "source", skip_broken=True)
    assert [task.name for task in made.tasks] == ["b"]
    assert [Path(one.file).name for one in made.skipped] == ["B.json"]


printable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(printable, printable), min_size=10, max_size=20,
             unique_by=lambda pair: normalised(pair[0])),
    printable,
)  # fmt: skip
def test_any_text_comes_back(pairs: list[tuple[str, str]], definition: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        told = [{"input": question, "output": [answer]} for question, answer in pairs]
        path = write_instructions(Path(name) / "a.json", Instances=told, Definition=definition)
        (Path(name) / "tasks").mkdir()
        import_tasks(path, Path(name) / "tasks", ImportConfig())
        task, _ = read_task(Path(name) / "tasks/a")
    assert [d.text for d in task.descriptions] == ["\n".join(definition.strip().splitlines())]
    got = {(row.prompt, row.messages[-1]["content"]) for row in (*task.train, *task.test)}
    composed = partial(unicodedata.normalize, "NFC")  # as every text is read
    assert got == {(composed(question), composed(answer)) for question, answer in pairs}
