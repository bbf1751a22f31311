"""Numbers as people read them."""

import pytest

from palate.labeling.statistics.formatting import day, digits_of, interval, number, one_line, seconds
from palate.labeling.statistics.panels import Cell, Unit


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (None, "share", "–"),
        ("as it is", "number", "as it is"),
        (0.7261, "share", "72.6 %"),
        (0.0, "share", "0.0 %"),
        (1.0, "share", "100.0 %"),
        (0.0002, "share", "<0.1 %"),
        (-0.05, "share", "-5.0 %"),
        (24_943, "count", "24,943"),
        (24_943.0, "count", "24,943"),
        (1112.4, "number", "1,112"),
        (112.44, "number", "112"),
        (12.345, "number", "12.3"),
        (1.2345, "number", "1.23"),
        (0.0, "number", "0.00"),
        (0.00123, "number", "0.0012"),
        (1e-9, "number", "<0.0001"),
        (-1e-9, "number", "0.00"),
        (-0.5, "number", "-0.50"),
        (7, "number", "7"),
        (41.3, "seconds", "41 s"),
        (1_788_134_400.0, "date", "2026-08-31"),
    ],
)
def test_numbers(value: Cell, unit: Unit, shown: str) -> None:
    assert number(value, unit) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8, "0.8 s"), (3, "3 s"), (41, "41 s"), (119, "119 s"), (120, "2 min"), (210, "3.5 min"), (3599, "60 min"),
     (7200, "2 h"), (45_000, "12 h"), (2 * 86_400, "2 days"), (400 * 86_400, "400 days")],
)  # fmt: skip
def test_durations(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_intervals() -> None:
    assert interval(0.681, 0.743, "share") == "68.1 to 74.3"
    assert interval(39.0, 44.1, "seconds") == "39 to 44 s"
    assert interval(90.0, 150.0, "seconds") == "90 s to 2.5 min"
    assert interval(1080.4, 1144.0) == "1,080 to 1,144"
    assert interval(None, 1.0) == "" and interval(1.0, None) == ""


def test_numbers_that_are_read_together_have_the_same_digits() -> None:
    for values, digits in (([1112.4, 3.0], 0), ([12.5, 0.001], 1), ([0.5, -0.0001, None], 2), ([0.02], 3),
                           ([1e-9], None), ([3, 4], 0), ([None], None), ([], None), (["a", 1.0], 2)):  # fmt: skip
        assert digits_of(values) == digits, values
    assert digits_of([0.5], "share") is None
    assert [number(value, "number", 2) for value in (0.5, -0.0001, 1234.5)] == ["0.50", "0.00", "1,234.50"]
    assert interval(-0.02, 0.0161, "number", 3) == "-0.020 to 0.016"


def test_days_are_utc() -> None:
    assert (day(0.0), day(86_399.0), day(86_400.0)) == ("1970-01-01", "1970-01-01", "1970-01-02")


def test_texts_of_others_stay_on_their_line_and_move_no_cursor() -> None:
    assert one_line("a\nb\tc\x1b[31md\u202e\u2028e") == "a b c [31md e"
    assert one_line("word " * 10, 12) == "word word w…"
    assert one_line("大模型", 3) == "大模型"
