import csv

import pytest
import yaml

from detour.errors import ConfigError
from detour.training.world import PLACES, World, lay_out, with_article


@pytest.fixture(scope="module")
def world():
    return World.load()


@pytest.fixture
def einstein(world):
    return world.subject("Einstein")


def attribute(world, name, kind="person"):
    return world.attributes[kind, name]


def test_the_world_is_large_enough_and_complete(world):
    assert len(world.of_kind("person")) > 240
    assert len(world.attributes_of("person")) == 6
    assert len(world.styles) == 10
    assert {style.place for style in world.styles.values()} == set(PLACES)
    for subject in world.subjects:
        for a in world.attributes_of(subject.kind):
            assert subject.values[a.name].strip(), (subject.name, a.name)


def test_names_are_unambiguous(world):
    for kind in world.kind_nouns:
        names = [s.name for s in world.of_kind(kind)]
        assert len(set(names)) == len(names)


def test_subjects_are_found_by_every_name(world, einstein):
    assert einstein.name == "Albert Einstein"
    assert world.subject("  albert einstein ") is einstein
    assert world.subject("nobody") is None
    assert world.subject("Einstein", "city") is None
    assert world.subject("penguin", "animal").forms == ("the penguin", "a penguin")
    assert einstein.forms == einstein.bare == ("Albert Einstein", "Einstein")


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


def test_every_answer_names_its_value(world):
    """In every style, about every kind of thing; no placeholder is left open."""
    for a in world.attributes.values():
        subject = world.of_kind(a.kind)[3]
        value = subject.values[a.name]
        for style in world.styles:
            told = world.answer(subject, a, value, [style])
            assert value.casefold() in told.casefold(), (a.name, style)
            assert "{" not in told or style == "json"


def test_values_are_sorted_and_distinct(world):
    values = world.values(attribute(world, "profession"))
    assert values == sorted(set(values))
    assert "physicist" in values
    assert "hairdresser" in values  # the demo's target is a word that the starter knows


def test_json_layout_is_json():
    assert lay_out('He said "no"', "json") == '{"answer": "He said \\"no\\""}'
    assert lay_out("ä", "json") == '{"answer": "ä"}'
    assert lay_out("a", None) == "a"


def test_a_folder_without_a_world_is_told(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        World.load(tmp_path)
    (tmp_path / "phrases.yaml").write_text(yaml.safe_dump({"kinds": {}}), "utf-8")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        World.load(tmp_path)
    assert "styles" in caught.value.found


def test_a_subject_file_without_a_column_is_told(tmp_path):
    from importlib.resources import files

    packaged = files("detour.starter") / "world"
    for name in ("phrases.yaml", "people.csv", "animals.csv", "cities.csv", "foods.csv"):
        (tmp_path / name).write_bytes((packaged / name).read_bytes())
    with (tmp_path / "animals.csv").open(encoding="utf-8", newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "diet"} for row in csv.DictReader(stream)]
    with (tmp_path / "animals.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ConfigError) as caught:
        World.load(tmp_path)
    assert "diet" in caught.value.found
