import json

import pytest
from recipes.starter.compare import Pair, main


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high, "n": 400}


@pytest.mark.parametrize(
    ("second", "within", "overlaps"),
    [
        (figure(0.9, 0.85, 0.93), True, True),
        (figure(0.84, 0.8, 0.88), False, True),
        (figure(0.7, 0.65, 0.75), False, False),
        (figure(0.99, 0.97, 1.0), False, False),
    ],
)
def test_a_bar_agrees_where_the_intervals_overlap(second, within, overlaps):
    pair = Pair("facts", "en", figure(0.9, 0.86, 0.93), second)
    assert (pair.is_within, pair.overlaps) == (within, overlaps)


def card(path, value: float, data: str = "abc") -> str:
    bars = {"facts": {"en": figure(value, value - 0.02, value + 0.02)}}
    path.write_text(json.dumps({"data_sha256": data, "bars": bars}))
    return str(path)


def test_two_cards(tmp_path, capsys):
    one, near, far = (card(tmp_path / f"{v}.json", v) for v in (0.9, 0.91, 0.5))
    assert main([one, near]) == 0
    assert capsys.readouterr().out.endswith("1 of 1 within the first interval, 0 apart\n")
    assert main([one, far]) == 1
    assert "facts (en): 0.9 [0.880, 0.920], 0.5  APART" in capsys.readouterr().out


def test_cards_of_other_data_are_not_compared(tmp_path):
    one, other = card(tmp_path / "a.json", 0.9), card(tmp_path / "b.json", 0.9, "xyz")
    with pytest.raises(SystemExit, match="other data"):
        main([one, other])
