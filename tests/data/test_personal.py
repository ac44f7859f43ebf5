"""Personal data are found by their check digits, and nothing else is taken for them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.data.personal import personal_data, redacted


def kinds(text: str, names: bool = False) -> list[str]:
    return [one.kind for one in personal_data(text, names)]


def iban(country: str, account: str) -> str:
    """With the check digits of ISO 13616, worked out here in another way than in the code."""
    for check in range(98, 1, -1):
        digits = "".join(str(int(c, 36)) for c in f"{account}{country}{check:02d}")
        if int(digits) % 97 == 1:
            return f"{country}{check:02d}{account}"
    raise AssertionError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Schreib an max.muster@firma.de!", "Schreib an [EMAIL]!"),
        ("Überweise auf DE89 3704 0044 0532 0130 00, bitte", "Überweise auf [IBAN], bitte"),
        ("GB29NWBK60161331926819.", "[IBAN]."),
        ("Steuer-ID 86 095 742 719", "Steuer-ID [TAX_ID]"),
        ("Tel. 089/123456 oder +49 (0)89 1234567", "Tel. [PHONE] oder [PHONE]"),
        ("0049 30 901820", "[PHONE]"),
        ("00 49 30 90182055", "[PHONE]"),
        ("(089) 123 456", "[PHONE]"),
        ("Durchwahl 089/1234-0, sonst +49 89 1234-5", "Durchwahl [PHONE], sonst [PHONE]"),
        ("Call (555) 123-4567 or 555-123-4567.", "Call [PHONE] or [PHONE]."),
        ("1-800-555-0199, 212.555.0123, +1 (555) 123-4567", "[PHONE], [PHONE], [PHONE]"),
        ("am 01/02/2023 unter 089 123456", "am 01/02/2023 unter [PHONE]"),
        ("bis 01/02/2023 089 123456", "bis 01/02/2023 [PHONE]"),
        ("Karte 4111 1111 1111 1111, gültig", "Karte [CARD], gültig"),
        ("5555-5555-5555-4444 oder 340000000000009", "[CARD] oder [CARD]"),
        ("max.mustermann (at) web.de", "[EMAIL]"),
        ("Mail: max [at] firma [dot] co.uk, danke", "Mail: [EMAIL], danke"),
        ("max(ät)web (punkt) de", "[EMAIL]"),
        ("0171 12-11-2023", "[PHONE]"),  # a number whose end only looks like a date
    ],
)
def test_they_are_replaced_by_their_kind(text: str, told: str) -> None:
    assert redacted(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "DE88 3704 0044 0532 0130 00",  # a wrong check digit
        "86095742718",  # the last digit of a tax number is wrong
        "12345678901",  # no digit twice
        "von 1879 bis 1955, also 0,25 mm auf 2024-05-01",
        "Version 10.2.13, 3.141592653 und 1 000 000",
        "@property def user(self)",
        "ISBN 978-3-16-148410-0",
        "12:30-14:00 in Raum 0815",
        "01/02/2023",
        "03-04-2024",
        "am 03 04 2024",
        "05/31/1999 um 08:15",
        "09-09-2001 12:30",
        "01/02/2023-03/04/2023",
        "01/02/2023 - 03/04/2023",
        "(07/08/2021)",
        "00 12 34 56",
        "Artikel 04711-1234-5",
        "04711/1234/5",
        "555-1234-567",
        "155-123-4567",
        "10.555-123-4567",
        "555-123-4567-8",
        "192.168.100.2000",
        "4111 1111 1111 1112",  # a wrong check digit
        "9111 1111 1111 1111",  # nobody's card
        "4111 1111 1111 1111 1",
        "4006381333931",  # an EAN
        "look (at) this",
        "we met (at web) de",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert kinds(text) == []
    assert redacted(text) == text


def test_names_only_behind_titles_and_only_if_asked() -> None:
    text = "Herr Dr. Max Müller-Weiß und Mrs. Smith kamen nach Berlin."
    assert kinds(text) == []
    assert redacted(text, names=True) == "[NAME] und [NAME] kamen nach Berlin."


@given(st.text(alphabet="0123456789", min_size=18, max_size=18), st.text(), st.booleans())
def test_every_german_iban_is_found_wherever_it_stands(
    account: str, around: str, spaced: bool
) -> None:
    whole = iban("DE", account)
    told = " ".join(whole[i : i + 4] for i in range(0, 22, 4)) if spaced else whole
    text = f"{around} ({told}) {around}"
    assert told not in redacted(text)
    wrong = whole[:2] + f"{(int(whole[2:4]) % 97) + 1:02d}" + whole[4:]
    assert "iban" not in kinds(f"({wrong})")


def test_a_redacted_text_holds_nothing_more() -> None:
    rng = random.Random(0)
    parts = ["DE89370400440532013000", "a@b.de", "+49 89 1234567", "Frau Anna", "Wort", "12,5"]
    for _ in range(200):
        text = " ".join(rng.choices(parts, k=8))
        assert kinds(redacted(text, names=True), names=True) == []
