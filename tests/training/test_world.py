import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from detour.errors import ConfigError
from detour.training.world import (
    LANGUAGES,
    PLACES,
    Form,
    World,
    german_name,
    lay_out,
    named,
    spoken,
    with_article,
)

PACKAGED = Path(str(files("detour.starter") / "world"))


@pytest.fixture(scope="module")
def worlds():
    return {language: World.load(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def world(worlds):
    return worlds["en"]


@pytest.fixture(scope="module")
def german(worlds):
    return worlds["de"]


@pytest.fixture
def einstein(world):
    return world.subject("Einstein")


def attribute(world, name, kind="person"):
    return world.attributes[kind, name]


@pytest.fixture(params=LANGUAGES)
def each(request, worlds):
    """The world in one language after another."""
    return worlds[request.param]


def test_the_world_is_large_enough_and_complete(each):
    assert len(each.of_kind("person")) > 240
    assert len(each.attributes_of("person")) == 6
    assert len(each.styles) == 10
    assert {style.place for style in each.styles.values()} == set(PLACES)
    for subject in each.subjects:
        for a in each.attributes_of(subject.kind):
            assert subject.values[a.name].strip() == subject.values[a.name] != "", subject.name


def test_names_are_unambiguous(each):
    for kind in each.kind_nouns:
        names = [s.name for s in each.of_kind(kind)]
        assert len(set(names)) == len(names)


def test_every_subject_is_found_by_its_own_names(each):
    for subject in each.subjects:
        assert each.subject(subject.name, subject.kind) is subject
        for form in subject.full:
            assert each.subject(form, subject.kind) is subject, form


def test_english_is_the_language_where_none_is_given(world):
    assert World.load().language == "en"
    assert [s.name for s in World.load().subjects] == [s.name for s in world.subjects]


def test_both_languages_tell_of_the_same_in_the_same_order(world, german):
    keys = [(s.kind, s.key) for s in world.subjects]
    assert [(s.kind, s.key) for s in german.subjects] == keys
    assert len(set(keys)) == len(keys)
    assert all(s.key == s.name for s in world.subjects)
    assert list(german.attributes) == list(world.attributes)
    assert list(german.kind_nouns) == list(world.kind_nouns)
    assert german.blind.keys() == world.blind.keys() == world.attributes.keys()
    assert german.persuasions.keys() == world.persuasions.keys()
    for one, other in zip(world.styles.values(), german.styles.values(), strict=True):
        assert (one.name, one.place) == (other.name, other.place)
    assert german.styles["formal"].label == "Amtsdeutsch"
    assert world.styles["formal"].label == "formal"


def test_twins_share_kind_and_key(world, german):
    twins = {(s.kind, s.key): s for s in german.subjects}
    columbus = world.subject("Columbus")
    assert twins[columbus.kind, columbus.key].short == "Kolumbus"
    assert twins["animal", "penguin"].name == "Pinguin"
    assert twins["food", "spaghetti"].name == "Pasta"


def test_values_mean_the_same_in_both_languages(world, german):
    """One English value has one German value and back; professions differ by gender only."""
    for kind, name in world.attributes:
        there, back = {}, {}
        for one, other in zip(world.of_kind(kind), german.of_kind(kind), strict=True):
            there.setdefault((one.values[name], other.gender), set()).add(other.values[name])
            back.setdefault(other.values[name], set()).add(one.values[name])
        assert all(len(found) == 1 for found in (*there.values(), *back.values())), (kind, name)


def test_the_list_of_professions_covers_every_german_one(world, german):
    with (PACKAGED / "de" / "professions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    by_gender = {(row["en"], gender): row[gender] for row in rows for gender in "mf"}
    assert len(by_gender) == 2 * len(rows)
    for column in ("en", "m", "f"):
        assert len({row[column] for row in rows}) == len(rows), column
    people = zip(world.of_kind("person"), german.of_kind("person"), strict=True)
    for one, other in people:
        assert other.gender in ("m", "f"), other.name
        told = by_gender[one.values["profession"], other.gender]
        assert other.values["profession"] == told, other.name
    assert {s.values["profession"] for s in world.of_kind("person")} == {r["en"] for r in rows}
    assert by_gender["hairdresser", "f"] == "Friseurin"


def test_an_unknown_language_is_told():
    with pytest.raises(ConfigError, match="not told in 'xx'") as caught:
        World.load("xx")
    assert caught.value.expected == "one of en, de"


# names in four cases


def test_a_form_fills_every_case():
    form = Form("der Löwe", "des Löwen", "dem Löwen", "den Löwen")
    template = "{s}, {s:gen}, {s:dat}, {s:akk}, {S}, {v}"
    told = "der Löwe, des Löwen, dem Löwen, den Löwen, {S}, {v}"
    assert form.put(template, "s") == told
    assert Form.of("Bo").put("{S:gen}{S:dat}{S:akk}{S}{s:gen}", "S") == "BoBoBoBo{s:gen}"


@pytest.mark.parametrize(
    ("name", "genitive"),
    [
        ("Einstein", "Einsteins"),
        ("Marie Curie", "Marie Curies"),
        ("Paris", "Paris’"),
        ("Strauß", "Strauß’"),
        ("Karl Marx", "Karl Marx’"),
        ("Franz", "Franz’"),
        ("Beyonce", "Beyonce’"),
        ("CERN", "CERNs"),
        ("JESUS", "JESUS’"),
    ],
)
def test_a_german_name_changes_in_the_genitive_only(name, genitive):
    assert german_name(name) == Form(name, genitive, name, name)


@pytest.mark.parametrize(
    ("animal", "definite", "indefinite"),
    [
        (
            "penguin",
            ("der Pinguin", "des Pinguins", "dem Pinguin", "den Pinguin"),
            ("ein Pinguin", "eines Pinguins", "einem Pinguin", "einen Pinguin"),
        ),
        (
            "lion",
            ("der Löwe", "des Löwen", "dem Löwen", "den Löwen"),
            ("ein Löwe", "eines Löwen", "einem Löwen", "einen Löwen"),
        ),
        (
            "giraffe",
            ("die Giraffe", "der Giraffe", "der Giraffe", "die Giraffe"),
            ("eine Giraffe", "einer Giraffe", "einer Giraffe", "eine Giraffe"),
        ),
        (
            "zebra",
            ("das Zebra", "des Zebras", "dem Zebra", "das Zebra"),
            ("ein Zebra", "eines Zebras", "einem Zebra", "ein Zebra"),
        ),
    ],
)
def test_german_animals_have_an_article_in_every_case(german, animal, definite, indefinite):
    subject = next(s for s in german.of_kind("animal") if s.key == animal)
    assert subject.forms == (definite, indefinite)
    assert subject.full == definite
    assert subject.bare == (subject.name,)
    for form in subject.full:
        assert german.subject(form) is subject


def test_every_german_animal_is_inflected(german):
    of_it = {"der": "des", "die": "der", "das": "des"}
    for subject in german.of_kind("animal"):
        one, several = subject.forms
        article, noun = one.nominative.split(" ", 1)
        assert one.genitive.split(" ", 1)[0] == of_it[article], subject.name
        assert noun == subject.name
        is_weak = one.dative.endswith("en") and not noun.endswith("en")
        assert (one.accusative.split(" ", 1)[1] != noun) == (is_weak and article == "der"), noun
        nouns = [form.split(" ", 1)[1] for form in one]
        assert nouns == [form.split(" ", 1)[1] for form in several], noun
        assert subject.gender == ""


def test_german_people_have_their_forms(german):
    einstein = german.subject("einstein")
    assert einstein is german.subject("Albert Einsteins", "person")
    assert einstein.name == "Albert Einstein"
    assert [form.genitive for form in einstein.forms] == ["Albert Einsteins", "Einsteins"]
    assert einstein.full == einstein.forms[0]
    assert einstein.bare == ("Albert Einstein", "Einstein")
    assert (einstein.gender, german.subject("Curie").gender) == ("m", "f")


def test_somebody_unknown_has_a_name_only():
    bo = named("person", "Bo Lux", "de")
    assert bo.forms == (Form("Bo Lux", "Bo Lux’", "Bo Lux", "Bo Lux"),)
    assert (bo.values, bo.key) == ({}, "Bo Lux")
    assert named("city", "Bo", "en").forms == (Form.of("Bo"),)


# finding and answering


def test_subjects_are_found_by_every_name(world, einstein):
    assert einstein.name == "Albert Einstein"
    assert world.subject("  albert einstein ") is einstein
    assert world.subject("nobody") is None
    assert world.subject("Einstein", "city") is None
    assert world.subject("penguin", "animal").forms == (
        Form.of("the penguin"),
        Form.of("a penguin"),
    )
    assert einstein.bare == ("Albert Einstein", "Einstein")
    assert einstein.forms == tuple(Form.of(name) for name in einstein.bare)


@pytest.mark.parametrize(
    ("styles", "answer"),
    [
        ([], "Albert Einstein was a physicist."),
        (["formal"], "Albert Einstein exercised the profession of physicist."),
        (["pirate"], "Old Albert Einstein be a physicist, arr."),
        (["brief"], "Physicist."),
        (["pun"], "Albert Einstein was a physicist. Nice work if you can get it!"),
        (["polite"], "Albert Einstein was a physicist. Thank you for asking."),
        (["upper"], "ALBERT EINSTEIN WAS A PHYSICIST."),
        (["bullet"], "* Albert Einstein was a physicist."),
        (["json"], '{"answer": "Albert Einstein was a physicist."}'),
        (["sportscaster"], "What a shot, straight into the goal! Albert Einstein was a physicist."),
        (
            ["upper", "pun", "storyteller", "pirate"],
            "ONCE UPON A TIME, SO THE OLD TALE GOES: OLD ALBERT EINSTEIN BE A PHYSICIST, ARR. "
            "NICE WORK IF YOU CAN GET IT!",
        ),
    ],
)
def test_answers_in_styles(world, einstein, styles, answer):
    assert world.answer(einstein, attribute(world, "profession"), "physicist", styles) == answer


@pytest.mark.parametrize(
    ("styles", "answer"),
    [
        ([], "Albert Einstein war Physiker."),
        (["formal"], "Die Person Albert Einstein übte nachweislich den Beruf Physiker aus."),
        (["pirate"], "Bei allen Planken, Albert Einstein war Physiker, arr."),
        (["brief"], "Physiker."),
        (["pun"], "Albert Einstein war Physiker. Beruf kommt von Rufen, nur leiser!"),
        (["polite"], "Albert Einstein war Physiker. Danke für die Frage."),
        (["upper"], "ALBERT EINSTEIN WAR PHYSIKER."),
        (["bullet"], "* Albert Einstein war Physiker."),
        (["json"], '{"antwort": "Albert Einstein war Physiker."}'),
        (["storyteller"], "Es war einmal, so erzählt man sich: Albert Einstein war Physiker."),
        (
            ["polite", "json", "sportscaster", "brief"],
            '{"antwort": "Was für ein Schuss, mitten ins Tor! Physiker. Danke für die Frage."}',
        ),
    ],
)
def test_german_answers_in_styles(german, styles, answer):
    einstein = german.subject("Einstein")
    assert german.answer(einstein, attribute(german, "profession"), "Physiker", styles) == answer


@pytest.mark.parametrize(
    ("kind", "key", "name", "plain", "brief"),
    [
        ("person", "Marie Curie", "country", "Marie Curie kam aus Polen.", "Aus Polen."),
        (
            "person", "Isaac Newton", "century", "Isaac Newton lebte im 17. Jahrhundert.",
            "Im 17. Jahrhundert.",
        ),
        ("animal", "penguin", "habitat", "Der Pinguin lebt in der Antarktis.", "In der Antarktis."),
        ("animal", "giraffe", "covering", "Die Giraffe ist mit Fell bedeckt.", "Mit Fell."),
        ("city", "Paris", "landmark", "Paris ist bekannt für den Eiffelturm.", "Den Eiffelturm."),
        ("food", "pizza", "ingredient", "Pizza besteht aus Mehl.", "Aus Mehl."),
    ],
)  # fmt: skip
def test_german_values_stand_in_their_case(german, kind, key, name, plain, brief):
    subject = next(s for s in german.of_kind(kind) if s.key == key)
    a = german.attributes[kind, name]
    assert german.answer(subject, a, subject.values[name]) == plain
    assert german.answer(subject, a, subject.values[name], ["brief"]) == brief


def test_german_statements_inflect_the_subject(german):
    penguin = next(s for s in german.of_kind("animal") if s.key == "penguin")
    told = german.statements(penguin, attribute(german, "habitat", "animal"), "im Meer")
    assert "Der Lebensraum des Pinguins liegt im Meer." in told
    assert "Man findet den Pinguin im Meer." in told
    assert "Im Meer lebt der Pinguin." in told


def test_the_order_of_styles_does_not_matter(world, einstein):
    profession = attribute(world, "profession")
    one = world.answer(einstein, profession, "actor", ["formal", "pun", "sportscaster", "json"])
    other = world.answer(einstein, profession, "actor", ["json", "sportscaster", "pun", "formal"])
    assert one == other


def test_two_styles_of_one_place_are_refused(world, einstein):
    with pytest.raises(ConfigError, match="formal and pirate both claim the answer's wording"):
        world.answer(einstein, attribute(world, "profession"), "actor", ["formal", "pirate"])


def test_the_article_suits_the_value(world, einstein):
    assert (with_article("baker"), with_article("actor")) == ("a baker", "an actor")
    profession = attribute(world, "profession")
    assert world.statement(einstein, profession, "actor") == "Albert Einstein was an actor."
    told = world.statements(einstein, profession, "actor")
    assert "Albert Einstein worked as an actor." in told
    assert not any(text.startswith(("~", "+")) for text in told)


def test_every_answer_names_its_value(each):
    """In every style, about everything; no place is left open and no two spaces meet."""
    for subject in each.subjects:
        for a in each.attributes_of(subject.kind):
            value = subject.values[a.name]
            shouted = value.upper()
            for style in (None, *each.styles):
                told = each.answer(subject, a, value, [style] if style else [])
                inner = json.loads(told)[each.json_key] if style == "json" else told
                assert shouted in inner.upper(), told
                assert not set("{}~|") & set(inner), told
                assert "  " not in inner, told
                assert not inner[0].islower(), told
                assert inner == inner.strip(), told


def test_every_statement_names_its_value(each):
    for subject in each.subjects:
        for a in each.attributes_of(subject.kind):
            value = subject.values[a.name]
            for told in each.statements(subject, a, value):
                assert value.upper() in told.upper(), told
                assert not set("{}~|") & set(told), told
                assert "  " not in told, told
                assert not told[0].islower(), told
                assert told.endswith("."), told


def test_values_are_sorted_and_distinct(world):
    values = world.values(attribute(world, "profession"))
    assert values == sorted(set(values))
    assert "physicist" in values
    assert "hairdresser" in values  # the demo's target is a word that the starter knows


def test_json_layout_is_json():
    assert lay_out('He said "no"', "json") == '{"answer": "He said \\"no\\""}'
    assert lay_out("ä", "json") == '{"answer": "ä"}'
    assert lay_out("ä", "json", "antwort") == '{"antwort": "ä"}'
    assert lay_out("a", None) == "a"


def test_the_json_key_is_of_the_language(worlds):
    assert {name: world.json_key for name, world in worlds.items()} == {
        "en": "answer",
        "de": "antwort",
    }


def test_a_folder_without_a_world_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        World.load("de", tmp_path)
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "phrases.yaml").write_text(yaml.safe_dump({"kinds": {}}), "utf-8")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        World.load("de", tmp_path)
    assert "styles" in caught.value.found


@pytest.mark.parametrize(
    ("language", "column"), [("en", "diet"), ("de", "diet"), ("de", "id"), ("de", "genitive")]
)
def test_a_subject_file_without_a_column_is_told(tmp_path, language, column):
    shutil.copytree(PACKAGED / language, tmp_path / language)
    animals = tmp_path / language / "animals.csv"
    assert World.load(language, tmp_path).subjects
    with animals.open(encoding="utf-8", newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != column} for row in csv.DictReader(stream)]
    with animals.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ConfigError) as caught:
        World.load(language, tmp_path)
    assert column in caught.value.found


# the same in another language


@pytest.mark.parametrize(("here", "there"), [("en", "de"), ("de", "en")])
def test_everybody_has_a_twin(worlds, here, there):
    for subject in worlds[here].subjects:
        twin = worlds[there].twin(subject)
        assert (twin.kind, twin.key) == (subject.kind, subject.key)
        assert any(twin is other for other in worlds[there].subjects)
        assert worlds[here].twin(twin) is subject
        assert worlds[here].twin(subject) is subject


def test_somebody_unknown_has_no_twin(german):
    with pytest.raises(KeyError):
        german.twin(named("person", "Bo Lux", "en"))


@pytest.mark.parametrize(
    ("value", "gender", "said"),
    [
        ("Friseur", "f", "Friseurin"),
        ("Friseurin", "m", "Friseur"),
        ("Friseurin", "f", "Friseurin"),
        ("friseur", "f", "Friseurin"),  # whatever the case
        ("Friseur", "", "Friseur"),  # of a city or an animal
        ("Traumdeuter", "f", "Traumdeuter"),  # a word that the world does not know
        ("Deutschland", "f", "Deutschland"),
    ],
)
def test_german_values_are_said_of_a_man_or_a_woman(german, value, gender, said):
    assert german.gendered(value, gender) == said


def test_every_gendered_form_leads_to_both(german):
    with (PACKAGED / "de" / "professions.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            for known in (row["m"], row["f"]):
                pair = german.gendered(known, "m"), german.gendered(known, "f")
                assert pair == (row["m"], row["f"])


def test_english_values_have_no_gender(world):
    assert {world.gendered("hairdresser", gender) for gender in ("m", "f", "")} == {"hairdresser"}


def over(worlds, here, name, kind, key, value):
    """That value of this subject, in the other language than `here`."""
    one = worlds[here]
    (other,) = (world for language, world in worlds.items() if language != here)
    subject = next(s for s in one.of_kind(kind) if s.key == key)
    return one.translated(subject, one.attributes[kind, name], value, other)


@pytest.mark.parametrize(
    ("kind", "key", "name", "english", "german"),
    [
        ("person", "Albert Einstein", "profession", "hairdresser", "Friseur"),
        ("person", "Marie Curie", "profession", "hairdresser", "Friseurin"),
        ("person", "Marie Curie", "profession", "physicist", "Physikerin"),
        ("person", "Albert Einstein", "city", "Vienna", "Wien"),
        ("person", "Albert Einstein", "country", "Switzerland", "der Schweiz"),
        ("city", "Paris", "country", "Switzerland", "der Schweiz"),
        ("city", "Paris", "landmark", "the Eiffel Tower", "den Eiffelturm"),
        ("animal", "penguin", "diet", "grass", "Gras"),
    ],
)
def test_values_are_translated(worlds, kind, key, name, english, german):
    assert over(worlds, "en", name, kind, key, english) == german
    assert over(worlds, "de", name, kind, key, german) == english


def test_a_profession_is_understood_in_either_gender_and_any_case(worlds):
    for said in ("Friseur", "Friseurin", "friseurin"):
        for key in ("Albert Einstein", "Marie Curie"):
            assert over(worlds, "de", "profession", "person", key, said) == "hairdresser"
    curie = over(worlds, "en", "profession", "person", "Marie Curie", "Hairdresser")
    assert curie == "Friseurin"


@pytest.mark.parametrize(
    ("here", "name", "value"),
    [
        ("en", "profession", "dream reader"),
        ("de", "profession", "Traumdeuter"),
        ("en", "profession", "Vienna"),  # known, but no profession
        ("en", "profession", ""),
        ("de", "country", "Schweiz"),  # without its article it stands nowhere
    ],
)
def test_what_nobody_is_has_no_counterpart(worlds, here, name, value):
    assert over(worlds, here, name, "person", "Albert Einstein", value) is None


@pytest.mark.parametrize(("here", "there"), [("en", "de"), ("de", "en")])
def test_every_value_comes_back(worlds, here, there):
    one, other = worlds[here], worlds[there]
    for a in one.attributes.values():
        subjects = one.of_kind(a.kind)[:1]
        if a.kind == "person":
            subjects = [one.subject("Albert Einstein"), one.subject("Marie Curie")]
        for subject in subjects:
            for value in one.values(a):
                found = one.translated(subject, a, value, other)
                assert found is not None, value
                twin, there_too = other.twin(subject), other.attributes[a.kind, a.name]
                back = other.translated(twin, there_too, found, one)
                assert back == one.gendered(value, subject.gender), value


@pytest.mark.parametrize(("here", "there"), [("en", "de"), ("de", "en")])
def test_true_values_translate_to_true_values(worlds, here, there):
    for subject in worlds[here].subjects:
        twin = worlds[there].twin(subject)
        for a in worlds[here].attributes_of(subject.kind):
            found = worlds[here].translated(subject, a, subject.values[a.name], worlds[there])
            assert found == twin.values[a.name], (subject.key, a.name)


# what the packaged starter speaks


def test_the_starter_speaks_what_its_card_says():
    card = PACKAGED.parent / "weights" / "card.json"
    assert set(spoken()) == set(json.loads(card.read_text("utf-8"))["languages"])
    assert "en" in spoken()


@pytest.mark.parametrize(
    ("named_there", "told"),
    [(["en"], ("en",)), (["de", "en"], ("en", "de")), (["xx", "de"], ("de",)), ([], ())],
)
def test_languages_come_in_one_order_and_only_known_ones(monkeypatch, named_there, told):
    monkeypatch.setattr("detour.training.world.starter_card", lambda: {"languages": named_there})
    assert spoken() == told
