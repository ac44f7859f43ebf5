import re
from dataclasses import replace

import pytest

from detour.evaluate.plots import rates_plot
from detour.evaluate.render import (
    BAR,
    bar,
    languages_text,
    line,
    rates_text,
    report_html,
    report_text,
    trace_text,
)
from detour.evaluate.steer_report import Failure, LanguageReport, Latent, Section
from detour.language.catalogue import Catalogue
from detour.measure.statistics import rate

SPOILED = Section(rate([False]), (Failure("Why?", "before this", "after that"),))
GERMAN = Catalogue.load("de")
EVIL = "<script>alert('x')</script>&\"'"


@pytest.mark.parametrize(
    ("value", "drawn"), [(0, ""), (1, "█" * BAR), (0.5, "█" * (BAR // 2)), (7, "█" * BAR), (-1, "")]
)
def test_bars(value, drawn):
    assert bar(value) == drawn.ljust(BAR)


def test_bars_show_eighths():
    assert bar(1 / (BAR * 8)).strip() == "▏"
    assert bar(7 / (BAR * 8)).strip() == "▉"


def test_a_line_holds_value_interval_and_n():
    told = line("neighbours", rate([True, True, False, True]))
    assert "0.750" in told
    assert "n=4" in told
    assert "[0.301, 0.954]" in told
    assert "nothing to measure" in line("neighbours", rate([]))


def test_the_text_says_everything(taught):
    text = report_text(taught.report)
    for part in ("Bo has 99.", "system prompt, best wording", "adapter, held-out phrasings",
                 "neighbours (same question, others)", "the subject's other facts", "unrelated",
                 "Probability of the whole answer", "logit lens", "updates landed", "bit-equal",
                 "before and after: equal", "note: "):  # fmt: skip
        assert part in text, part
    assert len([row for row in text.splitlines() if re.match(r"\s+[01]\.\d\d  ", row)]) == 7


def test_the_text_shows_failures_and_warnings(taught):
    spoiled = replace(
        taught.report,
        here=replace(taught.report.here, steered=SPOILED),
        latent=Latent(-9.0, None, "hardly holds it"),
        trace=None,
        loader=replace(taught.report.loader, base_sha256_after="f" * 64, removed_bit_equal=False),
    )
    text = report_text(spoiled)
    assert "before this  ->  after that" in text
    assert "warning: hardly holds it" in text
    assert "No layer trace" in text
    assert text.count("DIFFERENT") == 2
    page = report_html(spoiled)
    assert "after that" in page
    assert "hardly holds it" in page


def test_the_page_is_self_contained(taught):
    page = report_html(taught.report)
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]*)""", page)
    assert len(sources) == 3  # rates, dose, trace
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    told = re.sub(r"data:[^\"]*", "", page)
    assert "http://" not in told
    assert "https://" not in told
    assert "@import" not in told
    assert "url(" not in told
    assert "<script" not in told
    assert page.startswith("<!doctype html>")
    assert page.count("<section>") == page.count("</section>") >= 6


def test_the_page_holds_figures_prompts_and_proof(taught):
    page = report_html(taught.report)
    for wording, _ in taught.report.user_prompt.by_wording:
        assert wording.replace("'", "&#x27;") in page
    assert taught.report.loader.base_sha256_before in page
    assert "fictional claim" in page
    assert "fictional claim" not in report_html(taught.report, fictional=False)
    assert "<title>mine</title>" in report_html(taught.report, title="mine")


def test_foreign_text_is_escaped(taught):
    report = taught.report
    evil = replace(
        report, subject=EVIL, relation_label=EVIL, target=EVIL, base=EVIL,
        here=replace(
            report.here, question=EVIL, base_answer=EVIL, steered_answer=EVIL,
            steered=Section(rate([False]), (Failure(EVIL, EVIL, EVIL),)),
        ),
        latent=Latent(-1.0, 1, EVIL),
        user_prompt=replace(report.user_prompt, by_wording=((EVIL, rate([True])),)),
        trace=replace(report.trace, prefix=EVIL, old_token=EVIL, new_token=EVIL),
    )  # fmt: skip
    page = report_html(evil)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 12


def test_a_rate_of_nothing_is_drawn_as_such():
    """An empty bar with an interval from 0 to 1 would be read as a measured 0."""
    nothing = rates_plot([("neighbours", rate([]), True)])
    for figure in (rate([False]), rate([True])):
        assert rates_plot([("neighbours", figure, True)]) != nothing
    assert rates_plot([("neighbours", rate([]), False)]) == nothing  # no bar, so no colour
    assert rates_plot([("neighbours", rate([]), True)], GERMAN) != nothing


def test_a_report_with_nothing_to_measure_is_drawn(taught):
    empty = Section(rate([]))
    here = replace(taught.report.here, neighbours=empty, own_facts=empty, unrelated=empty)
    report = replace(taught.report, here=here)
    assert "nothing to measure" in report_text(report)
    assert "data:image/png" in report_html(report)


ENGLISH_WORDS = re.compile(
    r"\b(the|answers?|of|and|before|after|prompt,|wordings?|neighbours|weight|layer|steered|"
    r"landed|questions?|equal|training|among|trained)\b"
)


def test_the_german_report_says_everything(taught):
    text = report_text(taught.report, GERMAN)
    for part in ("Bo has 99.", "System-Prompt, beste Formulierung",
                 "Adapter, zurückgehaltene Fragen",
                 "Nachbarn, dasselbe gefragt", "Wahrscheinlichkeit der ganzen Antwort",
                 "Logit Lens", "Schicht-Updates angekommen", "bitgleich", "nachher: gleich",
                 "Hinweis: ", "sind deine"):  # fmt: skip
        assert part in text, part
    said = [
        taught.report.here.question,
        taught.report.here.base_answer,
        taught.report.here.steered_answer,
    ]
    for section in (s for _, s in taught.report.here.sections()):
        said += [part for f in section.failures for part in (f.question, f.before, f.after)]
    for part in sorted(filter(None, said), key=len, reverse=True):
        text = text.replace(part, "")
    assert ENGLISH_WORDS.findall(text) == []


def test_german_bars_stand_below_each_other(taught):
    for t in (Catalogue(), GERMAN):
        rows = [row for row in rates_text(taught.report, t).splitlines() if "n=" in row]
        assert len(rows) >= 12
        assert len({row.index("[") for row in rows}) == 1


def test_the_layer_table_keeps_its_columns_under_long_words(taught):
    for token in ("x", "a very long token"):
        trace = replace(taught.report.trace, old_token=token, new_token=token)
        for t in (Catalogue(), GERMAN):
            _, head, *rows = trace_text(replace(taught.report, trace=trace), t).splitlines()
            assert {len(row) for row in rows} == {len(head)}


def test_the_german_page(taught):
    page = report_html(taught.report, t=GERMAN)
    assert '<html lang="de">' in page
    assert '<html lang="en">' in report_html(taught.report)
    assert "erfundene Behauptung" in page
    told = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page)
    for wanted in ("Jeder Prompt, der versucht wurde", "Laden und latentes Wissen", "Students t"):
        assert wanted in told
    for title in re.findall(r"<(?:h2|th|small)>(.*?)</", page):
        assert title == taught.report.here.question or not ENGLISH_WORDS.search(title), title


def test_failures_and_warnings_in_german(taught):
    spoiled = replace(
        taught.report,
        here=replace(taught.report.here, steered=SPOILED),
        trace=None,
        loader=replace(taught.report.loader, base_sha256_after="f" * 64, removed_bit_equal=False),
    )
    text = report_text(spoiled, GERMAN)
    assert "gelenkt: 1 nicht, vorher  ->  nachher" in text
    assert text.count("VERSCHIEDEN") == 2
    assert "keine Schichtspur" in text
    assert "nichts zu messen" in line("Nachbarn", rate([]), GERMAN)


# the other languages

RATES = Section(rate([True, False])), Section(rate([True] * 4)), Section(rate([])), Section(
    rate([False])
)  # fmt: skip


@pytest.fixture
def bilingual(taught):
    told = LanguageReport(
        "Wer war Bo?", "Bo war Pilot.", "Bo war Bäcker.", *RATES, leak=rate([]), broken=rate([])
    )
    return replace(taught.report, elsewhere={"de": told})


def test_a_report_in_one_language_says_nothing_of_others(taught):
    assert languages_text(taught.report) == languages_text(taught.report, GERMAN) == ""


def test_another_language_is_told_with_rates_and_example(bilingual):
    head, *rates, question, base, steered = languages_text(bilingual).splitlines()
    assert head == "The same adapter, asked in German"
    assert [row[:36].strip() for row in rates] == [
        "adapter, held-out phrasings", "neighbours (same question, others)",
        "the subject's other facts", "unrelated questions",
    ]  # fmt: skip
    expected = ("0.500", "1.000", "nothing to measure", "0.000")
    assert all(value in row for row, value in zip(rates, expected, strict=True))
    assert question.strip() == "Wer war Bo?"
    assert base == "  base     Bo war Pilot."
    assert steered == "  steered  Bo war Bäcker."


def test_failures_of_every_language_are_told(bilingual):
    there = replace(bilingual.elsewhere["de"], neighbours=SPOILED)
    spoiled = replace(bilingual, elsewhere={"de": there})
    assert "neighbours unchanged (German): 1 not so, before  ->  after" in report_text(spoiled)
    assert "before this  ->  after that" in report_text(spoiled)
    page = report_html(spoiled, t=GERMAN)
    assert "<td>Nachbarn unverändert (Deutsch)</td><td>Why?</td><td>before this</td>" in page


def test_a_page_calls_the_relation_as_its_language_does(bilingual):
    told = replace(bilingual, relation="profession", relation_label="Beruf")
    assert "<h1>Bo: Beruf → 99</h1>" in report_html(told, t=GERMAN)
    assert told.to_json()["relation"] == "profession"


def test_other_languages_in_german(bilingual):
    here, there = bilingual.here, bilingual.elsewhere["de"]
    german_first = replace(bilingual, language="de", here=there, elsewhere={"en": here})
    text = languages_text(german_first, GERMAN)
    assert text.splitlines()[0] == "Derselbe Adapter, gefragt auf Englisch"
    assert "Wer war Bo?" not in text  # the report's own language stands elsewhere
    text = languages_text(bilingual, GERMAN)
    assert text.splitlines()[0] == "Derselbe Adapter, gefragt auf Deutsch"
    assert "  gelenkt  Bo war Bäcker." in text
    assert "nichts zu messen" in text
    assert ENGLISH_WORDS.findall(text) == []


def test_the_page_holds_the_other_languages(bilingual, taught):
    page = report_html(bilingual)
    section = page[page.index("Wer war Bo?") :].partition("</section>")[0]
    expected = (
        "Bo war Pilot.", "Bo war Bäcker.", "asked in German", "adapter, held-out phrasings",
        "0.500 [", "1.000 [", "nothing to measure", "0.000 [",
    )  # fmt: skip
    places = [section.index(part) for part in expected]
    assert places == sorted(places)
    assert "asked in" not in report_html(taught.report)
    assert "gefragt auf Deutsch" in report_html(bilingual, t=GERMAN)


def test_the_text_report_holds_the_other_languages(bilingual, taught):
    assert languages_text(bilingual) in report_text(bilingual)
    assert "asked in" not in report_text(taught.report)
