"""Pitfalls of data (9, 10): each test fails when its trap is put back."""

import json
import unicodedata
from pathlib import Path

import pytest
from tests.pitfalls.conftest import FAST, write_rows

from detour.data.damage import is_damaged
from detour.data.numbers import number_of
from detour.data.personal import personal_data, redacted
from detour.data.reading import read_data
from detour.errors import DataError
from detour.evaluate.answers import by_language
from detour.measure.metrics import normalised
from detour.measure.texts import rouge_n, text_figures, words
from detour.model.base import Base
from detour.model.examples import pair
from detour.training.config import make_config
from detour.training.loop import train_with
from detour.training.split import split

TOPICS = ["river", "stone", "copper", "lantern", "meadow", "signal", "harbour", "violin", "orchard",
          "winter", "garden", "bridge"]  # fmt: skip
PAIRS = [(f"What does the {one} beside the {other} look like from here?", f"{one}, {other}.")
         for one in TOPICS for other in TOPICS if one != other][:60]  # fmt: skip


# ---- 9: rows that stand on both sides -----------------------------------------------------------


def test_pitfall_09_questions_that_differ_in_form_only_stay_on_one_side() -> None:
    """NFC or not, large or small letters, spaces: one group."""
    questions = [f"Wie groß ist Öl {n}?" for n in range(30)]
    rows = [pair(question, "so") for question in questions]
    rows += [pair(unicodedata.normalize("NFD", q), "so") for q in questions]
    rows += [pair(q.upper().replace(" ", "  "), "so") for q in questions]
    kept, held = split(rows, 0.3, seed=0)
    assert (len(kept), len(held)) == (63, 27)
    assert not {normalised(row.prompt) for row in kept} & {normalised(row.prompt) for row in held}


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """A folder whose test part repeats one training question in other letters, one nearly."""
    near = (PAIRS[7][0] + "?", "x")
    write_rows(tmp_path / "leaking" / "train.jsonl", PAIRS)
    fine = ("Is there anybody who has never been asked?", "No.")
    write_rows(tmp_path / "leaking" / "test.jsonl", [(PAIRS[3][0].upper(), "x"), near, fine])
    return tmp_path / "leaking"


def test_pitfall_09_test_rows_that_train_are_found_to_the_letter_and_nearly(
    leaking, detour, folder
) -> None:
    report = detour("check", leaking, "--base", folder, "--json").json
    (told,) = [f for f in report["findings"] if f["code"] == "leakage"]
    assert (told["severity"], told["rows"]) == ("error", 2)
    assert "1 to the letter, 1 nearly" in told["advice"]
    assert [place.rpartition(":")[2] for place in told["where"]] == ["1", "2"]


def test_pitfall_09_test_rows_that_train_block_the_training(leaking, detour, folder) -> None:
    told = detour("train", leaking, "-o", "mine", "--base", folder, *FAST, "--json")
    assert told.code == 2
    assert told.json["error"] == "the data are not trained on: leakage (1)"
    assert f"{leaking / 'test.jsonl'}:1" in told.json["found"]
    assert not Path("mine").exists()


def test_pitfall_09_from_python_too(leaking, base: Base) -> None:
    with pytest.raises(DataError, match="1 rows of test stand in train too"):
        train_with(base, leaking, make_config({"steps": 2}))


def test_pitfall_09_classes_too(detour, folder, tmp_path) -> None:
    rows = [{"text": f"the {one} {n}", "label": "ab"[n % 2]} for n, one in enumerate(TOPICS)]
    for name, kept in (("train", rows), ("valid", [*rows[:2], {"text": "new", "label": "a"}])):
        told = "".join(json.dumps(row) + "\n" for row in kept)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.jsonl").write_text(told)
    told = detour("train", tmp_path / "labels", "-o", "mine", "--base", folder, *FAST, "--json")
    assert told.code == 2
    assert told.json["error"] == "the data are not trained on: leakage (2)"


def test_pitfall_09_a_fixed_copy_leaks_no_more(leaking, detour, folder) -> None:
    told = detour("check", leaking, "--base", folder, "--fix", "apart", "--json").json["cleaned"]
    assert told["dropped"] == {"leakage": 2}
    assert told["kept"] == {"train": 60, "test": 1}
    again = detour("check", "apart", "--base", folder, "--json").json
    assert "leakage" not in {finding["code"] for finding in again["findings"]}
    assert detour("train", "apart", "-o", "mine", "--base", folder, *FAST).code == 0


def test_pitfall_09_repeated_rows_are_found_whatever_their_form(detour, folder, tmp_path) -> None:
    again = [(PAIRS[0][0].upper(), PAIRS[0][1].upper()), (PAIRS[1][0] + "?", PAIRS[1][1])]
    rows = write_rows(tmp_path / "rows.jsonl", [*PAIRS, *again])
    report = detour("check", rows, "--base", folder, "--json").json
    found = {finding["code"]: finding["rows"] for finding in report["findings"]}
    assert found["exact_duplicates"] == 1
    assert found["near_duplicates"] >= 1


# ---- 10: German and Unicode ---------------------------------------------------------------------


NFD = unicodedata.normalize("NFD", "Größere Öfen für Jürgen")
NFC = unicodedata.normalize("NFC", NFD)


def test_pitfall_10_texts_are_kept_composed_and_asked_so(base: Base, detour, tmp_path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [(NFD, NFD), *PAIRS])
    first = read_data(rows).train[0]
    assert [message["content"] for message in first.messages] == [NFC, NFC]  # type: ignore[union-attr]
    assert base.chat(NFD) == base.chat(NFC)
    detour("check", rows, "--fix", tmp_path / "kept.jsonl")
    assert NFC in (tmp_path / "kept.jsonl").read_text("utf-8")
    assert NFD not in (tmp_path / "kept.jsonl").read_text("utf-8")
    for row in ({"text": NFD}, {"text": NFD, "label": NFD}):
        (told,) = read_data([row]).train
        assert told.text == NFC  # type: ignore[union-attr]
    assert told.label == NFC  # type: ignore[union-attr]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "txt"])
def test_pitfall_10_a_byte_order_mark_is_no_part_of_the_text(ending: str, tmp_path: Path) -> None:
    told = {
        "jsonl": '{"text": "Öl"}\n', "json": '[{"text": "Öl"}]', "csv": "text;more\nÖl;x\n",
        "txt": "Öl\n",
    }[ending]  # fmt: skip
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + told.encode())
    (row,) = read_data(path).train
    assert row.text == "Öl"  # type: ignore[union-attr]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_pitfall_10_what_is_not_utf8_is_an_error_with_its_line(ending: str, tmp_path: Path) -> None:
    told = {"jsonl": '{"text": "a"}\n{"text": "Öl"}\n', "csv": "text;more\nÖl;x\n",
            "txt": "a\nÖl\n"}[ending]  # fmt: skip
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(told.encode("windows-1252"))
    with pytest.raises(DataError, match=rf"rows\.{ending}:2 is not UTF-8") as caught:
        read_data(path)
    assert "--encoding cp1252, in which it reads" in str(caught.value.hint)
    (*_, row) = read_data(path, encoding="cp1252").train
    assert "Öl" in row.text  # type: ignore[union-attr]


def test_pitfall_10_wrongly_decoded_letters_are_found_and_mended(detour, folder, tmp_path) -> None:
    broken = "Wie groß ist Öl?".encode().decode("windows-1252")
    assert is_damaged(broken)
    assert not is_damaged("Wie groß ist Öl?")
    rows = write_rows(tmp_path / "rows.jsonl", [*PAIRS, (broken, "so")])
    report = detour(
        "check", rows, "--base", folder, "--fix", tmp_path / "kept.jsonl", "--json"
    ).json
    assert {f["code"]: f["rows"] for f in report["findings"]}["encoding"] == 1
    assert "Wie groß ist Öl?" in (tmp_path / "kept.jsonl").read_text("utf-8")


def test_pitfall_10_a_sharp_s_is_two() -> None:
    assert normalised("STRASSE") == normalised("Straße") == normalised("strasse")
    assert text_figures(["Straße"], ["STRASSE"], corpus=False)["exact_match"].value == 1.0


def test_pitfall_10_csv_with_semicolons_and_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "werte.csv"
    path.write_text("Satz;Wert\nEins, zwei;3,14\nDrei;1.234,5\nVier;-0,5\n", "utf-8")
    found = read_data(path)
    assert found.kind == "regression"
    assert [row.value for row in found.train] == [3.14, 1234.5, -0.5]  # type: ignore[union-attr]
    assert found.train[0].text == "Eins, zwei"  # type: ignore[union-attr]
    assert number_of("3,14") == 3.14


def test_pitfall_10_bank_accounts_and_tax_numbers_are_personal() -> None:
    told = "IBAN DE89 3704 0044 0532 0130 00 und Steuer-ID 86 095 742 719"
    assert [one.kind for one in personal_data(told)] == ["iban", "tax_id"]
    assert redacted(told) == "IBAN [IBAN] und Steuer-ID [TAX_ID]"
    wrong = "IBAN DE88 3704 0044 0532 0130 00 und Steuer-ID 86 095 742 718"
    assert personal_data(wrong) == []


def test_pitfall_10_umlauts_are_letters_in_rouge() -> None:
    assert words("Über größere Öfen") == ["über", "grössere", "öfen"]
    assert rouge_n("Über größere Öfen", "über grössere oefen", 1) == pytest.approx(2 / 3)
    assert rouge_n("Öl", "Ol", 1) == 0.0


def test_pitfall_10_bleu_and_chrf_are_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    wanted = ["Über größere Öfen spricht niemand gern.", "Das ist, kurz, ein Satz für dich!"]
    found = ["über große Öfen spricht niemand gern!", "Das ist, kurz, ein Satz für mich!"]
    told = text_figures(wanted, found)
    assert told["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score)
    assert told["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(found, [wanted]).score)


def test_pitfall_10_languages_are_told_apart() -> None:
    german = [pair(f"Was ist das für ein Ding, und wo ist die {n}?", "gut") for n in range(10)]
    english = [pair(f"What is that thing, and where is the {n}?", "good") for n in range(10)]
    told = by_language([*german, *english], ["gut"] * 20)
    assert told["de"]["exact_match"].value == 1.0
    assert told["en"]["exact_match"].value == 0.0
