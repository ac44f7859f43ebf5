import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from detour.adapter.adapter import Adapter
from detour.cli import train_adapter as command
from detour.cli.pipeline import settings_from
from detour.cli.progress import watched
from detour.model.base import Base
from detour.training.loop import Progress

SUMMARY = {"adapter", "rows", "validation_rows", "steps", "learning_rate", "first_loss",
           "best_loss", "best_step", "train_seconds", "keys", "tokens_per_second", "loss_first",
           "loss_last", "metrics", "retention", "cost", "processes"}  # fmt: skip
FAST = ("--steps", 6, "--learning-rate", 0.005, "--batch-size", 2, "--rank", 2)


@pytest.fixture
def data(shelf):
    """Four rows in the current folder."""
    rows = [{"prompt": f"Who was {n}?", "completion": "A hairdresser."} for n in ("A", "B", "C")]
    turns = [{"role": "user", "content": "D?"}, {"role": "assistant", "content": "A baker."}]
    path = shelf.parent.parent / "here" / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"messages": turns}]))
    return path


def test_json_says_how_it_went(detour, data, tiny_folder, tmp_path):
    more = ("--seed", 3, "--alpha", 4, "--licence", "cc0-1.0", "--description", "who cuts")
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, *FAST, *more, "--json")
    assert told.code == 0
    report = told.json
    assert set(report) == SUMMARY
    assert (report["rows"], report["steps"], report["learning_rate"]) == (4, 6, 0.005)
    assert report["best_loss"] < report["first_loss"]
    adapter = Adapter.load("mine")
    assert (adapter.name, adapter.rank, adapter.card.seeds) == ("mine", 2, (3,))
    assert {update.scale for update in adapter.updates.values()} == {2.0}
    assert (adapter.card.licence, adapter.card.description) == ("cc0-1.0", "who cuts")
    assert "training  6/6" in told.err
    assert not list(data.parent.glob(".mine*"))  # the state of the finished run is gone


def test_beside_the_adapter_stands_how_it_came_about(detour, data, tiny_folder):
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, *FAST, "--json").json
    folder = data.parent / "mine"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert (steps[0]["loss"], steps[-1]["loss"]) == (told["loss_first"], told["loss_last"])
    assert min(s["validation_loss"] for s in steps if "validation_loss" in s) == told["best_loss"]
    judged = json.loads((folder / "eval.json").read_text())
    assert judged == {name: told[name] for name in ("metrics", "retention", "cost")}
    assert told["metrics"]["loss"] == {"base": told["first_loss"], "adapter": told["best_loss"]}
    kept = told["retention"]
    assert kept["kl_mean"] > 0
    assert kept["perplexity_before"] != kept["perplexity_after"]
    run = yaml.safe_load((folder / "run.yaml").read_text())
    assert run["settings"]["learning_rate"] == told["learning_rate"]
    assert json.loads((folder / "data_report.json").read_text())["verdict"] == "too_few"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == Base.load(str(tiny_folder)).tokenizer.chat_template
    call = ("train", data, "-o", "mine", "--base", tiny_folder, *FAST, "--replace", "--json")
    again = detour(*call)
    assert again.code == 0  # a folder with all of it is an adapter, and is replaced


def test_what_was_trained_is_asked(detour, data, tiny_folder):
    assert detour("train", data, "-o", "mine", "--base", tiny_folder, *FAST).code == 0
    ask = ("ask", "Who was A?", "--base", tiny_folder, "--max-tokens", 5, "--json")
    base = Base.load(str(tiny_folder))
    expected = base.ask("Who was A?", Adapter.load("mine"), max_new_tokens=5)
    assert detour(*ask, "--chain", "./mine").json["answer"] == expected
    assert detour(*ask).json["answer"] != expected


def test_people_are_told_what_to_try(detour, data, tiny_folder):
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, "--steps", 6)
    assert "loss" in told.out
    assert f'detour ask "…" --chain ./mine --base {tiny_folder} --compare' in told.out
    lines = told.err.splitlines()
    derived = [number for number, line in enumerate(lines) if line.startswith("learning rate")]
    assert len(derived) == 1  # and said so before the training, once
    assert derived[0] < next(n for n, line in enumerate(lines) if line.startswith("training  "))
    assert "the loss is taken on training rows" in lines
    assert "4 rows from" in told.err


def test_a_config_file_is_read_and_flags_win(detour, data, tiny_folder):
    (data.parent / "c.yaml").write_text("rank: 3\nsteps: 5\ntargets: [q_proj]\nseed: 9\n")
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, "--config", "c.yaml",
                  "--rank", 1, "--targets", "v_proj, o_proj", "--json")  # fmt: skip
    assert (told.code, told.json["steps"], told.json["keys"]) == (0, 5, 6)
    adapter = Adapter.load("mine")
    assert (adapter.rank, adapter.card.seeds) == (1, (9,))


@pytest.mark.parametrize(
    ("flags", "yaml", "settings"),
    [
        ({"epochs": 2.0}, "steps: 3\nrank: 4\n", {"epochs": 2.0, "rank": 4}),
        ({"steps": 3}, "epochs: 2\n", {"steps": 3}),
        ({"steps": 3}, "steps: 5\n", {"steps": 3}),
        ({"rank": 2, "steps": None}, "epochs: 2\n", {"rank": 2, "epochs": 2}),
    ],
)
def test_a_flag_for_steps_overrides_the_files_epochs(tmp_path, flags, yaml, settings):
    (tmp_path / "c.yaml").write_text(yaml)
    assert settings_from(tmp_path / "c.yaml", flags) == settings


def test_both_flags_still_exclude_each_other(fails, data, tiny_folder):
    told = fails(2, "train", data, "-o", "mine", "--base", tiny_folder, "--steps", 3, "--epochs", 1)
    assert "exclude each other" in told["error"]


@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        ("full", 2, "is not an adapter"),
        ("rows.jsonl", 2, "is not an adapter"),
        ("rows.jsonl/mine", 1, "could not be written"),
    ],
)
def test_a_bad_output_is_told_before_the_base_is_loaded(fails, data, output, code, message):
    (data.parent / "full").mkdir()
    (data.parent / "full" / "thesis.tex").write_text("mine")
    told = fails(code, "train", data, "-o", output, "--base", "no/such-base")
    assert message in told["error"]
    assert (data.parent / "full" / "thesis.tex").read_text() == "mine"
    assert {path.name for path in data.parent.iterdir()} == {"full", "rows.jsonl"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "holds no row"),
        (b"\x00\x01\x02", "is a binary file"),
        ("x".encode("utf-16"), "UTF-16"),
        (b"{}\n", "rows.jsonl:1: the columns do not say"),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}\n',
         "rows.jsonl:2 has no answer"),
        (b"nonsense\n", "rows.jsonl:1 is not JSON"),
    ],
)  # fmt: skip
def test_bad_data_is_told_before_anything_is_written(fails, data, tiny_folder, content, message):
    data.unlink()
    if content is not None:
        data.write_bytes(content)
    told = fails(2, "train", data, "-o", "mine", "--base", tiny_folder)
    assert message in told["error"]
    assert {path.name for path in data.parent.iterdir()} <= {"rows.jsonl"}


def test_a_row_that_is_too_long_leaves_nothing(detour, data, tiny_folder):
    data.write_text(json.dumps({"prompt": "x y " * 300, "completion": "b"}) + "\n")
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, "--json")
    assert told.code == 2
    assert "not trained on: truncated (1)" in told.json["error"]
    assert "100.0% of the rows are longer" in told.json["found"]
    assert told.json["found"].endswith("rows.jsonl:1")
    assert [path.name for path in data.parent.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("yaml", "message", "hint"),
    [
        ("rnak: 4\n", "unknown setting 'rnak'", "did you mean 'rank'?"),
        ("rank: 0\n", "setting rank is out of range", ""),
        ("steps: 3\nepochs: 1\n", "exclude each other", ""),
        ("- rank\n", "is not a mapping", ""),
    ],
)
def test_bad_settings_are_told(fails, data, tiny_folder, yaml, message, hint):
    (data.parent / "c.yaml").write_text(yaml)
    told = fails(2, "train", data, "-o", "mine", "--base", tiny_folder, "--config", "c.yaml")
    assert message in told["error"]
    assert hint in told["hint"]


def test_a_training_that_changes_nothing_fails(detour, data, tiny_folder):
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, "--steps", 1,
                  "--learning-rate", 0, "--json")  # fmt: skip
    assert told.code == 2
    assert "changed nothing" in told.json["error"]
    assert not (data.parent / "mine").exists()


def test_resume_needs_something_to_resume(fails, data, tiny_folder):
    told = fails(2, "train", data, "-o", "mine", "--base", tiny_folder, "--resume")
    assert "no interrupted run" in told["error"]


def test_a_folder_without_a_state_is_nothing_to_resume(fails, data, tiny_folder):
    (data.parent / ".mine.training").mkdir()
    told = fails(2, "train", data, "-o", "mine", "--base", tiny_folder, "--resume")
    assert "no interrupted run" in told["error"]


def test_ctrl_c_before_the_first_step_saves_nothing_and_says_so(
    detour, data, tiny_folder, monkeypatch
):
    call = ("train", data, "-o", "mine", "--base", tiny_folder, *FAST, "--json")
    with monkeypatch.context() as patch:
        patch.setattr("detour.training.loop.derive", _press)
        told = detour(*call)
    assert told.code == 130
    assert told.json["error"] == "stopped; nothing of this run is saved"
    assert "--resume" not in told.json["hint"]
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert "the state is saved" in detour(*call).json["error"]
    monkeypatch.setattr("detour.training.loop.derive", _press)
    resumed = detour(*call, "--resume").json
    assert "the state is saved" in resumed["error"]
    assert resumed["hint"] == "the same command with --resume"


def _press(*_):
    raise KeyboardInterrupt


def test_ctrl_c_after_the_training_names_the_adapter(detour, data, tiny_folder, monkeypatch):
    genuine = Adapter.save
    monkeypatch.setattr(Adapter, "save", lambda self, *given: _press(genuine(self, *given)))
    told = detour("train", data, "-o", "mine", "--base", tiny_folder, *FAST, "--json")
    assert told.code == 130
    assert told.json["error"] == "stopped after the training; the adapter is saved at mine"
    assert Adapter.load("mine").rank == 2


def stop_at(monkeypatch, step):
    """Ctrl-C at this step, as a user who watches would press it."""

    class Stopping:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __call__(self, progress):
            if progress.step == step:
                raise KeyboardInterrupt

    monkeypatch.setattr(command, "watched", lambda *_: Stopping())


def test_ctrl_c_saves_and_resume_goes_on(detour, data, tiny_folder, monkeypatch):
    call = ("train", data, "--base", tiny_folder, *FAST)
    assert detour(*call, "-o", "whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        stopped = detour(*call, "-o", "mine", "--json")
    assert stopped.code == 130
    assert stopped.json["hint"] == "the same command with --resume"
    assert not (data.parent / "mine").exists()
    told = detour(*call, "-o", "mine", "--resume", "--json")
    assert told.code == 0
    assert Adapter.load("mine").digest() == Adapter.load("whole").digest()
    assert not list(data.parent.glob(".mine*"))


def test_resuming_with_other_settings_is_refused(detour, data, tiny_folder, monkeypatch):
    call = ("train", data, "--base", tiny_folder, "-o", "mine", *FAST)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        detour(*call)
    told = detour(*call, "--seed", 5, "--resume", "--json")
    assert told.code == 2
    assert "belongs to another run" in told.json["error"]
    assert told.json["found"] == "changed: seed"


def test_progress_is_a_line_now_and_then(capfd):
    with watched("training") as watcher:
        for step in range(1, 101):
            watcher(Progress(step, 100, 1.5, None, 1234.0, 100.0 - step))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("training  100/100  loss 1.500  1234 tokens/s")
    assert "80 s left" in lines[0]


def test_progress_is_a_live_bar_in_a_terminal(capfd, monkeypatch):
    monkeypatch.setattr("detour.cli.progress.is_terminal", lambda _: True)
    monkeypatch.setattr("detour.cli.output.is_terminal", lambda _: True)
    with watched("training") as watcher:
        watcher(Progress(1, 2, 1.5, None, 1234.0, 1.0))
        watcher(Progress(2, 2, 1.25, 0.5, 1234.0, 0.0))
    assert "1.250" in capfd.readouterr().err


PLAY = """
import sys
from pathlib import Path
from detour.cli.output import note, say
from detour.cli.progress import watched
from detour.training.loop import Progress
with watched("training") as watcher:
    for text in ("first", "second", "third"):
        say(text)
    for step in (1, 2):
        watcher(Progress(step, 2, 1.5, None, 1234.0, 1.0))
    say("fourth")
    if len(sys.argv) > 1:
        watcher(Progress(1, 2, 1.5, None, 1234.0, 1.0))
        raise SystemExit(3)
"""


@pytest.mark.parametrize("more", [(), ("stopped",)])
def test_the_live_bar_leaves_alone_what_is_said_around_it(more):
    """In a real terminal: the bar is drawn between the third and the fourth word, never earlier."""
    shown, code = in_terminal([sys.executable, "-c", PLAY, *more])
    assert code == (3 if more else 0)
    before, _, after = shown.partition("third\r\n")
    assert before == "first\r\nsecond\r\n"
    bar, _, rest = after.partition("fourth\r\n")
    assert "2/2" in bar
    assert bar.count(HIDE) == bar.count(SHOW) == 1
    assert rest.count(HIDE) == rest.count(SHOW) == len(more)  # the cursor comes back


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def in_terminal(command):
    """What a terminal of 80 columns gets, and the exit code."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    pieces = []
    with contextlib.suppress(OSError):  # Linux ends a terminal that nobody holds with an error
        while piece := os.read(ours, 4096):
            pieces.append(piece)
    os.close(ours)
    return b"".join(pieces).decode(), process.wait()


def test_a_training_goes_on_from_an_adapter(detour, data, tiny_folder):
    fast = ("--base", tiny_folder, "--steps", 6, "--learning-rate", 0.005, "--batch-size", 2)
    first = detour("train", data, "-o", "one", *fast, "--rank", 2, "--targets", "q_proj", "--json")
    told = detour("train", data, "-o", "two", *fast, "--start", "one", "--json")
    assert told.code == 0, told.err
    assert told.json["first_loss"] == pytest.approx(first.json["best_loss"], rel=1e-4)
    one, two = Adapter.load("one"), Adapter.load("two")
    assert two.rank == 2
    assert two.updates.keys() == one.updates.keys()
    assert two.card.config["start"]["sha256"] == one.digest()

    low = detour("train", data, "-o", "three", *fast, "--start", "one", "--rank", 1)
    assert low.code != 0
    assert "one does not fit into this rank" in low.err
    missing = detour("train", data, "-o", "three", *fast, "--start", "nowhere")
    assert missing.code != 0
    assert "nowhere" in missing.err
    assert not (data.parent / "three").exists()


def test_an_adapter_is_never_replaced_unasked(detour, data, tiny_folder):
    call = ("train", data, "-o", "mine", "--base", tiny_folder, *FAST)
    weights = Path("mine/adapter_model.safetensors")
    assert detour(*call).code == 0
    before = weights.read_bytes()
    refused = detour(*call, "--seed", 3, "--json")
    assert refused.code == 2
    assert refused.json["error"] == "mine holds an adapter already"
    assert "--replace" in refused.json["hint"]
    assert weights.read_bytes() == before
    assert detour(*call, "--seed", 3, "--replace").code == 0
    assert weights.read_bytes() != before
