"""Training data of every form are learned; what no language model learns is said."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from detour import train
from detour.cli.main import run
from detour.data.reading import learnable, read_data
from detour.errors import DataError, NoSupervision
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.rows import encode, padded

CHAT = {"prompt": "Who was A?", "completion": "A hairdresser."}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_forms_that_say_the_same_are_the_same_records(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Who was A?"}, {"from": "gpt", "value": "A hairdresser."}]
    rows = [
        CHAT,
        {"conversations": turns},
        {"instruction": "Who was A?", "output": "A hairdresser."},
    ]
    paths = [write(tmp_path / f"{number}.jsonl", [row]) for number, row in enumerate(rows)]
    csv = tmp_path / "a.csv"
    csv.write_text("Frage;Antwort\nWho was A?;A hairdresser.\n", "utf-8")
    told = [read_data(path).train[0] for path in (*paths, csv)]
    in_memory = [read_data([row]).train[0] for row in rows]
    messages = [one.messages for one in (*told, *in_memory) if isinstance(one, Example)]
    assert len(messages) == 7
    assert all(one == messages[0] for one in messages)


def test_a_folder_brings_its_own_validation(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [CHAT])
    write(tmp_path / "valid.jsonl", [{**CHAT, "prompt": "And B?"}])
    loaded = read_data(tmp_path)
    assert loaded.validation
    assert learnable(loaded, "validation")[0].prompt == "And B?"
    assert loaded.kind == "chat"
    assert str(loaded.told) == (
        "JSONL; train: train.jsonl; validation: valid.jsonl; format prompt_completion"
    )


def test_rows_with_classes_are_not_for_a_language_model(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": "x", "label": "y"}])
    assert read_data(path).kind == "classification"
    with pytest.raises(DataError, match="for classification") as refused:
        learnable(read_data(path))
    assert "--column" in refused.value.hint


def test_mixed_kinds_are_refused() -> None:
    with pytest.raises(DataError, match="different kinds"):
        read_data([Plain("x"), Example(tuple(read_data([CHAT]).train[0].messages))])  # type: ignore[union-attr]
    with pytest.raises(DataError, match="empty"):
        read_data([])


def test_every_token_of_a_plain_text_is_learned_once(starter: Base) -> None:
    tokenizer = starter.tokenizer
    assert tokenizer
    text = Plain("The river runs past the old stone bridge and the quiet mill. " * 9)
    ids = tokenizer.encode(text.text)
    rows = encode(tokenizer, [text], 1024, block=32)
    assert max(len(row.ids) for row in rows) == 32
    batch = padded(rows, starter.pad_id)
    learned = batch.targets[batch.targets >= 0].tolist()
    assert learned == [*ids, tokenizer.eos_token_id][1:]
    whole = encode(tokenizer, [text], 1024, block=1000)
    assert len(whole) == 1
    assert padded(whole, starter.pad_id).supervised == len(learned)


def test_plain_texts_are_trained_on_and_their_loss_falls(starter: Base, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"Der Fluss {n} fließt leise zum See." for n in range(12)), "utf-8")
    told: list[float] = []
    adapter = train(
        starter, path, rank=2, steps=12, batch_size=4, learning_rate=2e-3,
        watcher=lambda p: told.append(p.validation) if p.validation is not None else None,
    )  # fmt: skip
    assert told[-1] < told[0]
    assert adapter.card.config["block"] == 512


def test_turns_that_nobody_answers_are_told(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    row = {"messages": [*turns, {"role": "user", "content": "Thanks"}]}
    told = "left off behind the last answer: the turns of 1 rows"
    for loaded in (read_data(write(tmp_path / "a.jsonl", [row])), read_data([row])):
        assert str(loaded.told).endswith(told)
    assert "left off" not in read_data([{"messages": turns}]).told


def test_the_definition_of_a_task_file_is_learned_from(tmp_path: Path) -> None:
    task = {"Definition": ["Add."], "Instances": [{"input": "1 1", "output": ["2"]}]}
    path = tmp_path / "task.json"
    path.write_text(json.dumps(task), "utf-8")
    loaded = read_data(path)
    assert "the Definition is the system message" in loaded.told
    assert loaded.train[0].messages[0] == {"role": "system", "content": "Add."}  # type: ignore[union-attr]


def test_rows_that_cannot_be_used_are_counted_and_left_out_by_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"Satz": f"t{n}", "Wert": n} for n in range(5)]
    write(Path("my rows.jsonl"), [*rows, {"Satz": "t", "Wert": "n/a"}, {"Satz": "t", "Wert": ""}])
    columns = {"text": "Satz", "value": "Wert"}
    with pytest.raises(DataError, match=r"my rows\.jsonl:6 cannot be used") as refused:
        read_data("my rows.jsonl", columns)
    assert str(refused.value) == (
        "my rows.jsonl:6 cannot be used: column 'Wert' (2 of 7 rows cannot be used); expected a "
        "number; found 'n/a'; try: leave such rows out: detour check 'my rows.jsonl' --column "
        "text=Satz --column value=Wert --fix 'my rows-clean.jsonl'"
    )
    assert run(shlex.split(refused.value.hint.partition(": detour ")[2])) == 0
    assert len(read_data("my rows-clean.jsonl").train) == 5


def test_where_no_row_can_be_used_nothing_is_left_to_clean(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "a", "completion": ""}] * 2)
    with pytest.raises(NoSupervision, match=r"a\.jsonl:1 .*\(2 of 2 rows") as refused:
        read_data(path)
    assert refused.value.hint == "write the answer behind it"
    path.write_text('{"a": \n', "utf-8")
    with pytest.raises(DataError, match=r"is not JSON \(1 of 1 rows") as refused:
        read_data(path)
    assert refused.value.hint == "mend the line, or drop it"


def test_letters_in_another_encoding_are_not_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + '{"text": "für"}\n'.encode("cp1252"))
    with pytest.raises(DataError, match="is not UTF-8") as refused:
        read_data(path)
    assert "--fix" not in refused.value.hint
    assert [one.text for one in read_data(path, encoding="cp1252").train] == ["a", "für"]  # type: ignore[union-attr]
