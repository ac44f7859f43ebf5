import json
import shutil

import pytest

from detour.adapter.adapter import Adapter
from detour.evaluate import steer_report
from detour.training import own_fact, replay

CONTRACT = {"base_answer", "user_prompt", "system_prompt", "steered", "neighbours_unchanged",
            "own_other_facts_unchanged", "unrelated_unchanged", "dose", "loader", "adapter",
            "train_seconds", "total_seconds", "report"}  # fmt: skip
BO = ("--subject", "Bo", "--relation", "shoe size", "--target", "99")


@pytest.fixture
def short_answers(monkeypatch):
    monkeypatch.setattr(steer_report, "LONGEST", 6)
    monkeypatch.setattr(steer_report, "PROMPTED", 1)
    monkeypatch.setattr(steer_report, "DOSED", 2)
    monkeypatch.setattr(replay, "LONGEST_ANSWER", 4)
    monkeypatch.setattr(own_fact, "SAMPLES", 1)


@pytest.fixture
def files(shelf):
    """The user's own questions, in the current folder."""
    here = shelf.parent.parent / "here"
    (here / "near.txt").write_text("# others\n" + "".join(f"Size of {c}?\n" for c in "CDEF"))
    (here / "far.txt").write_text("".join(f"What is {c}?\n" for c in "1234"))
    (here / "ways.txt").write_text("".join(f"Way {n}: Bo's size?\n" for n in range(4)))
    return here


@pytest.fixture
def fast(files, roomy_folder, short_answers):
    return ("--base", roomy_folder, "--neighbours", "near.txt", "--unrelated", "far.txt",
            "--paraphrases", "ways.txt", "--steps", 8, "--learning-rate", 0.01)  # fmt: skip


def test_json_keeps_the_contract_and_files_lie_beside(detour, fast, files):
    told = detour("teach", *BO, "-o", "bo", *fast, "--old", "42", "--third", "12",
                  "--answer", "Bo wears 99.", "--rank", 2, "--seed", 3, "--json")  # fmt: skip
    assert told.code == 0, told.err
    report = told.json
    assert set(report) >= CONTRACT
    assert (report["adapter"], report["base"]) == ("bo", str(fast[1]))
    assert report["settings"]["rank"] == 2
    assert report["loader"]["removed_bit_equal"] is True
    assert report["neighbours_unchanged"]["n"] == 3
    page = (files / "bo" / "report.html").read_text("utf-8")
    assert report["report"] == "bo/report.html"
    assert "fictional claim" in page
    assert json.loads((files / "bo" / "report.json").read_text("utf-8"))["target"] == "99"
    adapter = Adapter.load("bo")
    assert adapter.card.fictional
    assert "Bo wears 99." in adapter.card.description
    assert adapter.card.metrics["steered"] == report["steered"]
    assert not list(files.glob(".bo*"))
    assert "4 are yours" in told.err


def test_people_get_the_report_as_text(detour, fast):
    told = detour("teach", *BO, "-o", "bo", *fast, "--true", "--kl-weight", 0.1)
    assert told.code == 0, told.err
    assert "The new answer, by" in told.out
    assert "report  bo/report.html" in told.out
    assert not Adapter.load("bo").card.fictional


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_german_way(detour, fast, files, monkeypatch, how):
    more = ("--lang", "de") if how == "option" else ()
    if how == "variable":
        monkeypatch.setenv("DETOUR_LANG", "de")
    told = detour("teach", "--subject", "Bo", "--relation", "die Schuhgröße", "--target", "99",
                  "-o", "bo", *fast, *more)  # fmt: skip
    assert told.code == 0, told.err
    assert "Die neue Antwort durch" in told.out
    assert "Bericht bo/report.html" in told.out
    assert "4 sind deine" in told.err
    assert "Lernen  8/8  Loss" in told.err
    assert "Schlüsseln angekommen" in told.err
    page = (files / "bo" / "report.html").read_text("utf-8")
    assert '<html lang="de">' in page
    report = json.loads((files / "bo" / "report.json").read_text("utf-8"))
    assert "sind deine" in report["notes"][0]
    assert set(report) | {"report"} >= CONTRACT
    assert "Die Schuhgröße von Bo ist 99." in Adapter.load("bo").card.description


def test_german_json_has_english_keys(detour, fast):
    told = detour("teach", "--subject", "Bo", "--relation", "Schuhgröße", "--target", "99",
                  "-o", "bo", *fast, "--lang", "de", "--json")  # fmt: skip
    assert told.code == 0, told.err
    assert set(told.json) >= CONTRACT
    assert any("mit Artikel" in note for note in told.json["notes"])


def test_statements_come_from_flags_and_a_file(detour, files, roomy_folder, monkeypatch):
    """What reaches `teach`; the teaching itself is tested elsewhere."""
    seen = {}

    def teach(base, *fact, **more):
        seen.update(more, fact=fact)
        raise KeyboardInterrupt

    monkeypatch.setattr("detour.evaluate.teach.teach", teach)
    (files / "facts.txt").write_text("# odd ones\nE = mc² is the formula of a fashionable cut\n")
    told = detour("teach", "--sentence", "Bo was a baker", "--statements", "facts.txt", "-o", "x",
                  "--base", roomy_folder)  # fmt: skip
    assert told.code == 130
    assert seen["statements"] == ("Bo was a baker", "E = mc² is the formula of a fashionable cut")
    assert [seen[name] for name in ("subject", "relation", "target")] == ["", "", ""]


@pytest.mark.parametrize("resume", [False, True])
def test_ctrl_c_while_measuring_names_the_adapter(detour, files, roomy_folder, monkeypatch, resume):
    """Whatever `teach` has saved by then is told, and no more."""
    state = files / ".x.training" / "state.safetensors"
    if resume:
        state.parent.mkdir()
        state.write_bytes(b"of an earlier stretch")

    def teach(*_, output, **more):
        output.mkdir()
        (output / "adapter_model.safetensors").write_bytes(b"trained")
        raise KeyboardInterrupt

    monkeypatch.setattr("detour.evaluate.teach.teach", teach)
    more = ("--resume",) if resume else ()
    told = detour("teach", *BO, "-o", "x", "--base", roomy_folder, "--json", *more)
    assert told.code == 130
    assert told.json["error"] == "stopped after the training; the adapter is saved at x"
    assert ("--resume" in told.json["hint"]) is resume


def test_a_bad_output_is_told_before_the_base_is_loaded(fails, files):
    told = fails(2, "teach", *BO, "-o", "near.txt", "--base", "no/such-base")
    assert "is not an adapter" in told["error"]
    assert fails(1, "teach", *BO, "-o", "near.txt/x", "--base", "no/such-base")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "a fact needs a subject"),
        (("--subject", "Bo", "--target", "9"), "a fact needs a subject"),
        ((*BO, "--sentence", "Bo was a baker"), "statements stand for themselves"),
        (("--statements", "none.txt"), "none.txt does not exist"),
        ((*BO, "--paraphrases", "empty.txt"), "empty.txt is empty"),
        ((*BO, "--neighbours", "utf16.txt"), "UTF-16"),
        ((*BO, "--unrelated", "binary.txt"), "is a binary file"),
        ((*BO, "--answer", "He wears 99."), "--answer does not name the subject"),
        ((*BO, "--answer", "Bo wears it."), "--answer does not name the target"),
        ((*BO, "--rank", 0), "setting rank is out of range"),
        ((*BO, "--resume"), "no interrupted run"),
        (("--sentence", "gibberish"), "cannot be split"),
    ],
)
def test_bad_input_is_told(fails, files, roomy_folder, options, message):
    (files / "empty.txt").write_bytes(b"")
    (files / "utf16.txt").write_bytes("Who?".encode("utf-16"))
    (files / "binary.txt").write_bytes(b"a\x00b")
    told = fails(2, "teach", *options, "-o", "out", "--base", roomy_folder)
    assert message in told["error"]
    assert not (files / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "eine Tatsache braucht Subjekt, Relation und Zielwert"),
        ((*BO, "--sentence", "Bo war Bäcker"), "Aussagen stehen für sich"),
        (("--statements", "none.txt"), "none.txt gibt es nicht"),
        ((*BO, "--paraphrases", "empty.txt"), "empty.txt ist leer"),
        ((*BO, "--unrelated", "binary.txt"), "ist eine Binärdatei"),
        ((*BO, "--answer", "Er trägt 99."), "enthält den Wert von --subject nicht"),
        ((*BO, "--rank", 0), "die Einstellung rank liegt außerhalb"),
        ((*BO, "--config", "wrong.yaml"), "unbekannte Einstellung 'rnk'"),
        ((*BO, "--resume"), "keinen unterbrochenen Lauf"),
        (("--sentence", "Bo was a baker"), "lässt sich nicht zerlegen"),
        ((*BO, "-o", "empty.txt"), "ist kein Adapter"),
        ((*BO, "--base", "nowhere"), "keine Basis namens 'nowhere'"),
        ((*BO, "--base", "."), "ist kein Modellordner"),
    ],
)
def test_bad_input_is_told_in_german(fails, files, roomy_folder, options, message):
    (files / "empty.txt").write_bytes(b"")
    (files / "binary.txt").write_bytes(b"a\x00b")
    (files / "wrong.yaml").write_text("rnk: 4\n")
    told = fails(2, "teach", "-o", "out", "--base", roomy_folder, *options, "--lang", "de")
    assert message in told["error"]
    told = " ".join(told.values())
    assert "expected" not in told
    assert " or " not in told


def test_a_base_without_a_chat_template_is_told(detour, files, roomy_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(roomy_folder, bare)
    (bare / "chat_template.jinja").unlink()
    told = detour("teach", *BO, "-o", "out", "--base", bare, "--json")
    assert told.code == 2
    assert "chat template" in told.json["error"]
    assert not (files / "out").exists()
