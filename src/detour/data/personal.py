"""Personal data in texts: e-mail addresses, phone numbers, accounts, cards, tax numbers, names.

Numbers count only if their check digits are right, so that a long number is not taken for a bank
account. Nothing here is certain: names are found by the title before them only. Knows text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

KINDS = ("email", "phone", "iban", "card", "tax_id", "name")
SHORTEST_IBAN, LONGEST_IBAN = 15, 34  # ISO 13616
SHORTEST_ABROAD = 11  # digits of a number behind "00 ": 00 12 34 56 is a list
_IBAN_LENGTHS: Final = {
    "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IS": 26,
    "IT": 27, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MT": 31, "NL": 18, "NO": 15, "PL": 28,
    "PT": 25, "RO": 24, "SE": 24, "SI": 19, "SK": 24,
}  # fmt: skip
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?!\w)")
# max (at) web.de, max [at] web [dot] de: hidden from machines, and from nobody else
_EMAIL_HIDDEN = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64} ?[(\[{] ?(?:at|ät|@) ?[)\]}] ?"
    r"(?:[\w-]{1,63}(?:\.| ?[(\[{] ?(?:dot|punkt|\.) ?[)\]}] ?)){1,8}[^\W\d_]{2,24}(?!\w)",
    re.IGNORECASE,
)
# by what the large issuers begin with; 16 digits in fours, or 15 of American Express
_CARD = re.compile(
    r"(?<![\w.,-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6(?:011|4[4-9]\d|5\d\d|2\d\d)|35\d\d)"
    r"(?P<four>[ -]?)\d{4}(?P=four)\d{4}(?P=four)\d{4}"
    r"|3[47]\d{2}(?P<six>[ -]?)\d{6}(?P=six)\d{5})(?![ -]?\d|\w|[.,]\d)"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_TAX = re.compile(r"(?<!\d)\d{2}[ ]?\d{3}[ ]?\d{3}[ ]?\d{3}(?!\d)")
# +49 …, 0049 …, 00 49 …, 0… or (0…) …, and perhaps one last digit for an extension (-0); never a
# part of a longer number
_PHONE = re.compile(
    r"(?<![\w.,-])(?:\+\d{1,3}"
    r"|(?<!\d[ /])(?:00 ?[1-9]\d{0,2}|0(?=[ /-]?\(?[1-9])|\(0[1-9]\d{0,4}\)))"
    r"[ /-]?(?:\(0?\d{1,5}\)[ /-]?)?\d{1,6}(?:[ /-]?\d{2,8}){1,5}(?:[/-]\d)?(?!\w|[.,/-]\d)"
)
# the North American numbering plan: (555) 123-4567, 1-555-123-4567, 555.123.4567
_PHONE_NANP = re.compile(
    r"(?<![\w.,/-])(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}(?P<sign>[.-]))"
    r"\d{3}(?(sign)(?P=sign)|[ .-])\d{4}(?!\w|[.,/-]\d)"
)
_DATE = re.compile(
    r"(?<!\d)(?<!\d[ /-])(\d{1,2})(?P<sign>[ /-])(\d{1,2})(?P=sign)(?:1[89]|2[01])\d{2}(?!\d)"
)
_NAME = re.compile(
    r"\b(?:Herr|Herrn|Frau|Mr\.?|Mrs\.?|Ms\.?|Dr\.|Prof\.)(?:[ ](?:Dr|Prof)\.)?"
    r"(?:[ ][A-ZÄÖÜ][\w'-]+){1,3}"
)


@dataclass(frozen=True)
class Found:
    """One of them and where it stands."""

    kind: str
    start: int
    end: int


def personal_data(text: str, names: bool = False) -> list[Found]:
    """All that a text holds, from left to right, without overlaps.

    IBANs by ISO 13616 (remainder 1 modulo 97), cards by ISO/IEC 7812-1,
    tax numbers (Steuer-ID) by ISO 7064, MOD 11,10.
    """
    found: list[Found] = []
    for one in sorted(_candidates(text, names), key=lambda one: (one.start, -one.end)):
        if not found or one.start >= found[-1].end:
            found.append(one)
    return found


def redacted(text: str, names: bool = False) -> str:
    """The text with each of them replaced by its kind, such as `[IBAN]`."""
    parts: list[str] = []
    place = 0
    for one in personal_data(text, names):
        parts += [text[place : one.start], f"[{one.kind.upper()}]"]
        place = one.end
    return "".join((*parts, text[place:]))


def _candidates(text: str, names: bool) -> Iterator[Found]:
    if any(bracket in text for bracket in "([{"):
        yield from (Found("email", *m.span()) for m in _EMAIL_HIDDEN.finditer(text))
    if "@" in text:
        yield from (Found("email", *m.span()) for m in _EMAIL.finditer(text))
    if any(character.isdigit() for character in text):
        dateless = _DATE.sub(_hidden, text)
        for kind, pattern, right in _NUMBERS:
            for match in pattern.finditer(dateless if kind == "phone" else text):
                length = right(match[0])
                if length:
                    yield Found(kind, match.start(), match.start() + length)
    if names:
        yield from (Found("name", *m.span()) for m in _NAME.finditer(text))


def _iban(told: str) -> int:
    """How many characters of what may be more than an IBAN are one; 0 for none."""
    wanted = _IBAN_LENGTHS.get(told[:2], len(told.replace(" ", "")))
    places = [place for place, character in enumerate(told) if character != " "][:wanted]
    taken = "".join(told[place] for place in places)
    if len(taken) != wanted or not SHORTEST_IBAN <= wanted <= LONGEST_IBAN:
        return 0
    digits = "".join(str(int(character, 36)) for character in taken[4:] + taken[:4])
    return places[-1] + 1 if int(digits) % 97 == 1 else 0


def _tax_id(told: str) -> int:
    """Eleven digits; the last checks the others, of which one stands there two or three times."""
    digits = [int(character) for character in told if character != " "]
    most = max(digits[:-1].count(digit) for digit in set(digits[:-1]))
    if digits[0] == 0 or most not in (2, 3):
        return 0
    product = 10
    for digit in digits[:-1]:
        total = (digit + product) % 10 or 10
        product = total * 2 % 11
    return len(told) if (11 - product) % 10 == digits[-1] else 0


def _card(told: str) -> int:
    """By Luhn's check digit (ISO/IEC 7812-1): every second digit from the right counts twice."""
    digits = [int(character) for character in reversed(told) if character.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return 0 if (sum(digits[::2]) + sum(doubled)) % 10 else len(told)


def _hidden(date: re.Match[str]) -> str:
    """As many signs that are no digits; a number that is no date stays."""
    one, other = sorted((int(date[1]), int(date[3])))
    return "x" * len(date[0]) if 1 <= one <= 12 and other <= 31 else date[0]


def _phone(told: str) -> int:
    count = sum(character.isdigit() for character in told)
    signs = {sign for sign in told if sign in " /-("}
    # digits without any sign between them are numbers of anything, unless a + says otherwise
    if not 7 <= count <= 15 or not (signs or told[0] == "+"):
        return 0
    is_article = told[-2] in "/-" and len(signs) == 1 and told[0] != "+"  # 04711-1234-5
    is_list = told.startswith("00 ") and count < SHORTEST_ABROAD
    return 0 if is_article or is_list else len(told)


_NUMBERS: Final[tuple[tuple[str, re.Pattern[str], Callable[[str], int]], ...]] = (
    ("iban", _IBAN, _iban),
    ("card", _CARD, _card),
    ("tax_id", _TAX, _tax_id),
    ("phone", _PHONE, _phone),
    ("phone", _PHONE_NANP, len),
)
