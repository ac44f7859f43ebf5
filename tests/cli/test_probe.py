"""`detour probe`, as people and programs call it."""

FACT = ("--subject", "Albert Einstein", "--relation", "profession", "--target", "baker")


def test_bases_are_ranked_by_what_they_hold(detour, roomy_folder):
    told = detour("probe", *FACT, "--base", roomy_folder, "--base", "starter", "--json")
    assert told.code == 0, told.err
    assert told.json["change"] == "Albert Einstein was a baker."
    first, second = told.json["probes"]
    assert (first["base"], second["base"]) == ("starter", str(roomy_folder))
    assert first["few_shot"]["value"] > second["few_shot"]["value"]
    assert set(first["rarest"]) == {"token", "share"}


def test_people_see_a_table_in_their_language(detour):
    told = detour("probe", *FACT, "--lang", "en")
    assert told.code == 0, told.err
    assert "behind examples" in told.out
    german = detour("probe", "--subject", "Albert Einstein", "--relation", "Beruf", "--target",
                    "Zorblax", "--lang", "de")  # fmt: skip
    assert german.code == 0, german.err
    assert "nach Beispielen" in german.out


def test_half_a_fact_and_an_unknown_base_are_told(fails):
    assert "a fact needs" in fails(2, "probe", "--subject", "Bo")["error"]
    assert fails(2, "probe", *FACT, "--base", "./nowhere")["error"]
