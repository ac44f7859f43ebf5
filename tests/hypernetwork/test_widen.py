"""More descriptions of a task: what frames do to a sentence, and what never gets in."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from detour.decoding.request import Finish, Generation
from detour.errors import DataError
from detour.hypernetwork.tasks import Description, Task, read_tasks
from detour.hypernetwork.widen import (
    HELD_OUT,
    NEW_FRAMES,
    Frame,
    WidenConfig,
    asker_of,
    first_sentence,
    is_order,
    language_of,
    prompt_for,
    put,
    read_folder,
    stripped,
    widen,
    write_folder,
)
from detour.measure.metrics import normalised

EVERYTHING = WidenConfig(count=100_000)


def task(name: str, *told: Description | str, split: Any = "train") -> Task:
    described = tuple(Description(text=d) if isinstance(d, str) else d for d in told)
    return Task(name, described, (), (), (name,), split=split)


def texts(descriptions: Sequence[Description]) -> list[str]:
    return [description.text for description in descriptions]


def test_a_task_gets_as_many_as_are_wanted_and_none_twice() -> None:
    tasks = [task("town", "Name the town."), task("job", "Tell me the trade.", "State the job.")]
    widened = widen(tasks, WidenConfig(count=64))
    assert [(t.before, t.templates, t.after) for t in widened.tasks] == [(1, 63, 64), (2, 62, 64)]
    new = [normalised(d.text) for added in widened.added.values() for d in added]
    assert len(set(new)) == len(new) == 125
    assert not set(new) & {normalised(d.text) for t in tasks for d in t.descriptions}
    assert widen(tasks, WidenConfig(count=64)).added == widened.added
    openings = {told.split("rade")[0].split("ob")[0][:9] for told in texts(widened.added["job"])}
    assert len(openings) > 30  # the first run goes through the openings, not through the endings
    assert widen(tasks, WidenConfig(count=2)).added == {
        "town": widened.added["town"][:1], "job": [],
    }  # fmt: skip


def test_every_description_of_a_task_takes_its_turn() -> None:
    widened = widen([task("job", "Tell me the trade.", "State the job.")], WidenConfig(count=22))
    told = texts(widened.added["job"])
    assert sum("trade" in each for each in told) == 10
    assert sum("job." in each or "job?" in each for each in told) == 10
    assert told[0].startswith("Do the following: State the job.")  # each in a frame of its own
    assert told[1].startswith("Your task: Tell me the trade.")


def test_what_judges_is_left_alone_and_never_trained() -> None:
    judged = "I want you to name the town. Do this for every input."
    own = task("town", "Name the town.", Description(text=judged, set="mine"))
    validation = task("trade", "Name the trade.", split="validation")
    test = task("boss", "Your task: Name the town. Thank you.", split="test")
    widened = widen([own, validation, test], WidenConfig(count=50))
    assert widened.added["trade"] == widened.added["boss"] == []
    assert widened.short == ["town"]  # its sentence is the test task's too, in a frame
    widened = widen([own, validation], WidenConfig(count=50))
    told = texts(widened.added["town"])
    assert len(told) == 49
    assert judged not in told
    # nor do the opening and the ending that it is judged in
    assert not [t for t in told if t.startswith("I want you to") or t.endswith("every input.")]


def test_sentences_that_two_tasks_share_stand_for_neither() -> None:
    shared = "Write a wrong answer to the question that you are given."
    rest = (
        "The answer should be about {}, and it should be as long as the question that it answers."
    )
    tasks = [task(name, f"{shared} {rest.format(name)}") for name in ("time", "order")]
    widened = widen(tasks, EVERYTHING)
    for name in ("time", "order"):
        assert widened.added[name]
        assert all(f"about {name}" in told for told in texts(widened.added[name]))
    alone = texts(widen(tasks[:1], EVERYTHING).added["time"])
    assert shared in alone
    assert f"Please w{shared[1:]}" in alone


def test_phrases_are_found_where_they_are_meant() -> None:
    parts = {"loud": "Shouting", "work": "the job"}
    marked = task("job", Description(text="Shouting aloud, name the job.", parts=parts))
    widened = widen([marked], EVERYTHING)
    assert len(widened.added["job"]) > 100
    for description in widened.added["job"]:
        assert description.parts == parts
        start = description.text.index("Shouting aloud, name the job")
        assert description.spans() == [(start, start + 8), (start + 21, start + 28)]
    assert not [t for t in texts(widened.added["job"]) if t.startswith("This is the job: ")]
    assert [t for t in texts(widened.added["job"]) if t.startswith("The job: ")]


FRAMED = [
    (Frame("Task: "), "Name the town", "Task: Name the town"),
    (Frame("Task: ", " Thanks."), "Name the town", "Task: Name the town. Thanks."),
    (Frame("", " Thanks."), 'Say "yes."', 'Say "yes." Thanks.'),
    (Frame("I want you to ", "", "."), "Name the town", "I want you to name the town."),
    (Frame("Can you ", " Thanks.", "?"), "Name the town!", "Can you name the town? Thanks."),
    (
        Frame("Can you ", "", "?"),
        "Write a question, e.g. about Ulm. It should be short.",
        "Can you write a question, e.g. about Ulm? It should be short.",
    ),
    (Frame("I want you to ", "", "."), "You are given a town.", None),
    (Frame("I want you to ", "", "."), "The town, please.", None),
]


@pytest.mark.parametrize(("frame", "told", "framed"), FRAMED)
def test_frames_keep_the_grammar(frame: Frame, told: str, framed: str | None) -> None:
    made = put(frame, Description(text=told))
    assert (made and made.text) == framed


def test_a_clause_that_would_change_a_phrase_is_left_out() -> None:
    told = Description(text="Name the town", parts={"a": "Name"})
    assert put(Frame("I want you to ", "", "."), told) is None
    assert put(Frame("Task: "), told) is not None


@pytest.mark.parametrize(
    ("told", "order"),
    [
        ("Name the town", True),
        ("name the town", True),
        ("Name of the town", False),
        ("Name: the town", False),
        ("Answer style: pirate", False),
        ("SORT the list", False),
        ("Given a town, name it", False),
        ("Name", False),
    ],
)
def test_what_is_an_order(told: str, order: bool) -> None:
    assert is_order(Description(text=told)) is order


STRIPPED = [
    ("In this task, you are given a town. Name it.", "You are given a town. Name it."),
    ("In this task, we ask you to write a question.", "Write a question."),
    ("Here, you need to check it.", "Check it."),
    ("Your task: name the town. Thank you.", "Name the town."),
    ("Could you name the town? Do so now.", "Name the town. Do so now."),
    ("You should be glad.", "You should be glad."),
    ("Please do the following: shout.", "Shout."),
    ("Your task: ", "Your task:"),
]


@pytest.mark.parametrize(("told", "bare"), STRIPPED)
def test_an_opening_that_is_there_is_not_framed_again(told: str, bare: str) -> None:
    assert stripped(Description(text=told)).text == bare


def test_nothing_is_stripped_that_would_take_a_phrase() -> None:
    told = Description(text="Please name the town.", parts={"a": "name"})
    assert stripped(told) == told
    german = Description(text="Deine Aufgabe: nenne die Stadt. Danke.", language="de")
    assert stripped(german).text == "Nenne die Stadt."
    assert stripped(german.model_copy(update={"language": "fr"})).text == german.text


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ("Write a question. It is short.", None),  # short as it is
        (f"Write a question. It is {'very ' * 30}short.", "Write a question."),
        (f"Write a town, e.g. Ulm. It is {'very ' * 30}short.", "Write a town, e.g. Ulm."),
        (f"You need to ask. It is {'very ' * 30}short.", "You need to ask."),
        (f"You are given a town. Name it {'very ' * 30}fast.", None),  # says nothing to do
        (f"Write a {'very ' * 30}short question", None),  # no second sentence
    ],
)
def test_the_first_sentence_of_a_long_description(told: str, first: str | None) -> None:
    found = first_sentence(Description(text=told))
    assert (found and found.text) == first
    assert first_sentence(Description(text=told, parts={"a": told.split()[-1]})) is None


@pytest.mark.parametrize(
    ("language", "frames"),
    [("", "en"), ("en-GB", "en"), ("English", "en"), ("de", "de"), ("Deutsch", "de"), ("fr", None)],
)
def test_frames_are_of_the_language_of_the_description(language: str, frames: str | None) -> None:
    told = Description(text="Nenne die Stadt.", language=language)
    assert language_of(told) == frames
    widened = widen([task("a", told)], WidenConfig(count=20, hold_out_frames=True))
    added = widened.added["a"]
    assert all(d.language == language for d in added)
    assert bool(added) is (frames is not None)
    assert widened.short == ([] if frames else ["a"])
    assert ("Deine Aufgabe: Nenne die Stadt. Danke." in texts(added)) is (frames == "de")


def trained_frames() -> set[str]:
    """All openings and endings that training texts have, read off the texts themselves."""
    found: set[str] = set()
    for language in ("en", "de"):
        told = Description(text="Name the XYZ.", language=language)
        for made in widen([task("a", told)], EVERYTHING).added["a"]:
            before, _, after = made.text.partition("XYZ")
            found |= {before.removesuffix("Name the "), after.lstrip(".? ")}
    return found - {""}


def test_held_out_frames_never_train() -> None:
    trained = trained_frames()
    assert "Your task: " in trained
    assert "Danke." in trained
    for language, frames in HELD_OUT.items():
        assert len(frames) == 8
        for part in {p.strip() for f in frames for p in (f.before, f.after)} - {""}:
            for other in trained:
                assert part not in other, language
                assert other.strip() not in part, language


def test_held_out_frames_judge_every_task(task_folder: Callable[..., Path]) -> None:
    source = task_folder()
    tasks = read_folder(source)
    widened = widen(tasks, WidenConfig(count=40, hold_out_frames=True))
    target = source.parent / "wide"
    target.mkdir()
    write_folder(source, target, widened.added)
    read = read_tasks(target)  # descriptions that both train and judge would be refused
    before = {t.name: t for t in read_tasks(source).every}
    for each in read.every:
        assert len(each.of_set(NEW_FRAMES)) == 3 + 8
        assert len(each.of_set()) == (40 if each.split == "train" else 9)
        old = before[each.name].descriptions
        assert each.descriptions[: len(old)] == old
        assert all(d.parts for d in each.descriptions)
        for d in each.descriptions:
            assert [d.text[a:b] for a, b in d.spans()] == list(d.parts.values())
    assert texts(read.of("test")[0].of_set(NEW_FRAMES))[3].startswith("A small favour is due: Say")
    assert {t.new_frames for t in widened.tasks} == {8}


def test_frames_never_say_a_phrase_that_is_held_out() -> None:
    riddle = Description(text="This, Please", parts={"a": "please"}, set="new words")
    told = texts(widen([task("a", "Name the town.", riddle)], EVERYTHING).added["a"])
    assert told
    assert not [t for t in told if "please" in t.casefold()]


def test_a_second_run_goes_on_where_the_first_ended() -> None:
    first = widen([task("a", "Name the town.")], WidenConfig(count=64, hold_out_frames=True))
    told = task("a", "Name the town.", *first.added["a"])
    again = widen([told], WidenConfig(count=64, hold_out_frames=True))
    assert again.added["a"] == []
    more = widen([told], WidenConfig(count=100))
    assert len(more.added["a"]) == 36
    assert all(t.count("ame the town") == 1 for t in texts(more.added["a"]))
    assert not [t for t in texts(more.added["a"]) if t.count(":") > 1]  # no frame in a frame


def test_answers_of_a_model_that_are_not_kept() -> None:
    riddle = Description(text="The burg!", parts={"town": "burg"}, set="new words")
    own = Description(text="Name the town in capitals.", parts={"town": "the town"})
    answers = [
        "", "Shout the town.", "SHOUT  the town.", "“State the town.”", "State the place.",
        "State the town. " * 6, "Name the town in capitals.",
        "Say the town, the burg, in capitals.", "the town is on the town is on the town is on",
        "the town",
    ]  # fmt: skip
    asked: list[str] = []

    def ask(prompts: Sequence[str]) -> list[str]:
        asked.extend(prompts)
        return answers

    widened = widen([task("town", own, riddle)], WidenConfig(count=11), ask)
    said = [d for d in widened.added["town"] if d.text in ("Shout the town.", "State the town.")]
    assert widened.added["town"][:2] == said
    assert all(d.parts == own.parts for d in said)
    assert widened.asked == 10
    assert widened.dropped == {
        "empty or unfinished": 1, "there already": 2, "without a phrase": 1, "too long": 1,
        "too short": 1, "with words that are held out": 1, "repeats itself": 1,
    }  # fmt: skip
    (made,) = widened.tasks
    assert (made.rephrased, made.templates, made.after) == (2, 8, 11)
    assert set(asked) == {prompt_for(own)}
    assert widened.to_json()["kept"] == 2
    framed = texts(widened.added["town"][2:])
    assert all("ame the town in capitals" in told for told in framed)  # frames for what was there


def test_only_tasks_that_train_and_lack_something_are_rephrased() -> None:
    def ask(prompts: Sequence[str]) -> list[str]:
        raise AssertionError(prompts)

    tasks = [task("a", "Name it.", "Say it."), task("b", "Tell it.", split="test")]
    widened = widen(tasks, WidenConfig(count=2), ask)
    assert (widened.asked, widened.added) == (0, {"a": [], "b": []})


def test_what_a_model_is_asked() -> None:
    english = prompt_for(Description(text="Name it.", parts={"a": "it", "b": "Name"}))
    assert english.endswith('as they are: "it", "Name".\n\nName it.')
    assert prompt_for(Description(text="Dis-le.", language="fr")).endswith(
        "instruction.\n\nDis-le."
    )
    german = prompt_for(Description(text="Sag es.", language="de"))
    assert german.startswith("Sag die folgende Anweisung mit anderen Worten.")


def test_a_base_as_one_who_rephrases() -> None:
    class Parrot:
        """Says the prompt again; an even number of words is never ended."""

        engine = SimpleNamespace(positions=12)

        def chat(self, prompt: str) -> tuple[int, ...]:
            return tuple(range(len(prompt.split())))

        def generate(self, prompts: Sequence[str], **options: Any) -> list[Generation]:
            self.options = options
            odd = [len(p.split()) % 2 for p in prompts]
            return [
                Generation((len(p),), Finish.STOP if o else Finish.LENGTH, 1)
                for p, o in zip(prompts, odd, strict=True)
            ]

        def decode(self, ids: Sequence[int]) -> str:
            return f"{ids[0]} characters"

    parrot = Parrot()
    ask: Any = asker_of(parrot, seed=3)  # pyright: ignore[reportArgumentType]
    assert ask(["a b c", "a b", "a b c d e f g", "a b c d e"]) == [
        "5 characters", "", "", "9 characters",
    ]  # fmt: skip
    assert parrot.options["seed"] == 3
    assert parrot.options["temperature"] > 0
    assert parrot.options["max_new_tokens"] == 5
    parrot.engine = SimpleNamespace(positions=None)
    assert ask(["a b c d e f g"]) == ["13 characters"]


def test_files_are_copied_and_what_stood_in_them_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "tasks", tmp_path / "wide"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        for part in ("train", "test"):
            row = f'{{"prompt": "{part} \u2028", "completion": "ü"}}\r\n'
            (source / name / f"{part}.jsonl").write_text(row, "utf-8", newline="")
    (source / "a/task.yaml").write_text(
        '# mine\nlicence: MIT\nweight: 2\nsource: "0\\N0"\n'
        "descriptions: [Sag es., {text: Grüß!, set: x}]\n",
        "utf-8",
    )
    (source / "b/task.yaml").write_text("# mine\ndescriptions: [Say it.]\nsplit: test\n")
    (source / "b/notes.txt").write_text("how it was made")
    target.mkdir()
    added = {"a": [Description(text="Los!", language="de", parts={"a": "Los"}),
                   Description(text="Los da!")], "b": []}  # fmt: skip
    write_folder(source, target, added)
    told = yaml.safe_load((target / "a/task.yaml").read_text("utf-8"))
    assert told == {
        "licence": "MIT", "weight": 2, "source": "0\x850",
        "descriptions": ["Sag es.", {"text": "Grüß!", "set": "x"},
                         {"text": "Los!", "language": "de", "parts": {"a": "Los"}}, "Los da!"],
    }  # fmt: skip
    for name in ("a/train.jsonl", "a/test.jsonl", "b/task.yaml", "b/notes.txt"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(DataError, match="holds no task"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/task.yaml").write_text("descriptions: []")
    with pytest.raises(DataError, match=r"a/task\.yaml: descriptions"):
        read_folder(tmp_path)
