import ast
import copy
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import detour
from detour.errors import DataError, DetourError
from detour.language.catalogue import (
    ENGLISH,
    LANGUAGES,
    Catalogue,
    Text,
    joined,
    text,
    wanted_language,
)

ROOT = Path(detour.__file__).parent
CALLED = {"text", "t", "catalogue"}


@pytest.fixture(scope="module")
def german() -> Catalogue:
    return Catalogue.load("de")


def calls_of(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func
        name = called.id if isinstance(called, ast.Name) else ""
        if isinstance(called, ast.Attribute) and called.attr == "t":  # self.t(…)
            name = called.attr
        if name in CALLED:
            yield node


def found_templates() -> dict[str, str]:
    """Every template in the code, and where it stands."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for call in calls_of(path):
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            first = call.args[0]
            assert isinstance(first, ast.Constant), f"{where}: the template is no literal"
            assert isinstance(first.value, str), where
            given = {keyword.arg for keyword in call.keywords}
            assert given == set(fields(first.value)), f"{where}: {first.value!r} gets {given}"
            found.setdefault(first.value, where)
    return found


def fields(template: str) -> list[str]:
    """The names of its fields with their conversions; a template repeats none."""
    parsed = string.Formatter().parse(template)
    return sorted({name for _, name, _, _ in parsed if name is not None})


def specs(template: str) -> set[tuple[str, str, str]]:
    parsed = string.Formatter().parse(template)
    return {(name, spec or "", how or "") for _, name, spec, how in parsed if name is not None}


def test_german_is_complete_and_holds_nothing_else(german):
    found = found_templates()
    assert len(found) > 200
    assert {k: where for k, where in found.items() if k not in german.entries} == {}
    assert sorted(set(german.entries) - set(found)) == []


ERRORS = {
    node.name
    for node in ast.walk(ast.parse((ROOT / "errors.py").read_text("utf-8")))
    if isinstance(node, ast.ClassDef)
}
PROSE = re.compile(r"[a-z]+ [a-z]+ [a-z]+")
# messages to whoever writes Python against slots, engine and stop strings: English only
LIBRARY_ONLY = ("slots/", "decoding/engine.py", "model/text.py")


def untranslated(node: ast.expr) -> bool:
    """Whether the expression is a sentence that no catalogue is asked for."""
    if isinstance(node, ast.IfExp):
        return untranslated(node.body) or untranslated(node.orelse)
    if isinstance(node, ast.JoinedStr):
        words = " ".join(v.value for v in node.values if isinstance(v, ast.Constant))
        return PROSE.search(words) is not None
    return isinstance(node, ast.Constant) and PROSE.search(str(node.value)) is not None


def test_every_error_of_the_command_line_can_be_told_in_german():
    english: list[str] = []
    for path in sorted(ROOT.rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or where.startswith(LIBRARY_ONLY):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                told = [*node.args[:1], *(k.value for k in node.keywords if k.arg != "found")]
                english += [f"{where}:{part.lineno}" for part in told if untranslated(part)]
    assert english == []


def test_the_search_for_english_finds_it():
    raised = ["'no such file here'", "f'{x} is not a file'", "text('a') if x else 'it is not so'"]
    fine = ["text('no such file here')", "'detour list'", "f'{x}, {y}'", "cause.message"]
    for code in (*raised, *fine):
        assert untranslated(ast.parse(code, mode="eval").body) is (code in raised), code


def test_german_templates_have_the_fields_of_the_english_ones(german):
    for template, told in german.entries.items():
        assert specs(told) == specs(template), template
        assert told[:1].isspace() == template[:1].isspace(), template
        assert told == told.rstrip(), template


def test_no_entry_stands_twice():
    source = (ROOT / "language/de.yaml").read_text("utf-8")
    keys = [key.value for key, _ in yaml.compose(source).value]
    assert len(keys) == len(set(keys))


def test_german_is_addressed_as_du(german):
    for told in german.entries.values():
        words = {word.strip(".,;:!?()") for word in told.split()}
        assert not words & {"Sie", "Ihr", "Ihre", "Ihren", "Ihnen"}, told


def test_text_is_english_and_remembers(german):
    told = text("there is no command {name!r}", name="lst")
    assert told == "there is no command 'lst'"
    assert (told.template, told.values["name"]) == ("there is no command {name!r}", "lst")
    assert german.say(told) == "es gibt keinen Befehl 'lst'"
    assert ENGLISH.say(told) == told
    with pytest.raises(TypeError):
        told.values["name"] = "x"


def test_values_are_translated_in_turn(german):
    inner = text("the same command with --resume")
    told = text('detour ask "…" --chain {output}; for what is missing, {again}', output="x",
                again=inner)  # fmt: skip
    assert told.endswith("for what is missing, the same command with --resume")
    assert german.say(told).endswith("derselbe Befehl mit --resume")
    both = joined("; ", [inner, "as it is", inner])
    assert both == f"{inner}; as it is; {inner}"
    assert german.say(both) == f"{german.say(inner)}; as it is; {german.say(inner)}"


def test_braces_in_values_are_left_alone(german):
    told = text("{path} does not exist", path="{path} {0} {")
    assert german.say(told) == "{path} {0} { gibt es nicht"
    assert german.say(joined("{;", ["{a}", "b"])) == "{a}{;b"
    assert text("a {{brace}}") == "a {brace}"


def test_a_text_without_an_entry_stays_english(german):
    assert german("no such {thing} anywhere", thing="x") == "no such x anywhere"
    assert german.say("an ordinary string {x}") == "an ordinary string {x}"


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_copies_remember_too(again, german):
    told = text("{path} is empty", path=text("the output"))
    other = again(told)
    assert (type(other), other, german.say(other)) == (Text, told, german.say(told))


def test_unknown_languages_are_refused():
    with pytest.raises(ValueError, match="'fr'"):
        Catalogue.load("fr")
    assert [Catalogue.load(language).language for language in LANGUAGES] == ["en", "de"]


@pytest.mark.parametrize(
    ("variable", "arguments", "language"),
    [
        ("", [], "en"),
        ("de", [], "de"),
        ("de", ["--lang", "en"], "en"),
        ("", ["teach", "--lang", "de", "-o", "x"], "de"),
        ("", ["teach", "--lang=de"], "de"),
        ("", ["--lang=en", "--lang", "de"], "de"),
        ("fr", [], "en"),
        ("de", ["--lang"], "de"),
        ("de", ["--lang", "fr"], "de"),
    ],
)
def test_the_language_that_errors_are_told_in(variable, arguments, language, monkeypatch):
    monkeypatch.setenv("DETOUR_LANG", variable)
    assert wanted_language(arguments) == language


def test_errors_in_german(german):
    error = DataError(
        text("{path} does not exist", path="a.txt"),
        expected=text("a file"),
        found="nothing",
        hint=text("check the path"),
    )
    assert str(error) == "a.txt does not exist; expected a file; found nothing; try: check the path"
    assert error.told() == str(error)
    told = "a.txt gibt es nicht; erwartet: eine Datei; gefunden: nothing; Tipp: prüfe den Pfad"
    assert error.told(german) == told
    assert error.to_json(german) == {
        "error": "a.txt gibt es nicht",
        "expected": "eine Datei",
        "found": "nothing",
        "hint": "prüfe den Pfad",
    }
    assert german.say(text("no layer trace: {error}", error=error.line)).endswith(told)
    assert DetourError("only {this}").told(german) == "only {this}"
