"""Temperature and calibration error: by hand, where the truth is known, and their intervals."""

from typing import Any

import numpy as np
import pytest

from palate.reward import calibration
from palate.reward.calibration import Bin, calibrate, error, temperature


def rows(
    n: int, heat: float, seed: int = 0, per_group: int = 1
) -> tuple[list[dict[str, Any]], list[list[float]]]:
    """Votes by Bradley-Terry on scores that are `heat` times too large."""
    rng = np.random.default_rng(seed)
    made, scores = [], []
    for i in range(n):
        margin = rng.normal() * 1.5
        won = int(rng.random() > 1 / (1 + np.exp(-margin)))
        pair = {"winner": won, "loser": 1 - won, "tie": False}
        made.append({"group": f"g{i // per_group}", "comparison_id": f"c{i}", "pairs": [pair]})
        scores.append([heat * margin, 0.0])
    return made, scores


@pytest.mark.parametrize("heat", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_repairs_it(heat: float) -> None:
    found = calibrate(*rows(2000, heat))
    assert found is not None and found.pairs == 2000
    assert found.temperature == pytest.approx(heat, rel=0.12)
    assert found.after.value < 0.05
    if heat != 1.0:
        assert found.before.low > found.after.high
    sense = {0.5: "not sure enough", 1.0: "about right", 3.0: "too sure"}[heat]
    assert found.lines()[0].startswith(f"as trained it is {sense}: temperature ")
    assert set(found.record()) == {"temperature", "before", "after", "pairs"}
    assert sum(one.pairs for one in found.bins) == 2000 and len(found.bins) == 10
    for one in found.bins:
        assert one.right == pytest.approx(one.predicted, abs=0.12)


def test_the_scale_is_that_of_log_odds() -> None:
    made, scores = rows(1000, 1.0)
    plain, scaled = calibrate(made, scores), calibrate(made, [[a / 4, b / 4] for a, b in scores], 4.0)
    assert plain is not None and scaled is not None and plain.temperature == pytest.approx(scaled.temperature)


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "PER_BIN", 2)
    monkeypatch.setattr(calibration, "BINS", 2)
    odds = np.log(np.array([0.6, 0.6, 0.9, 0.9]) / np.array([0.4, 0.4, 0.1, 0.1]))
    found, bins = error(odds * np.array([1, -1, 1, 1]), np.array([1.0, 1.0, 1.0, 0.5]), np.arange(4))
    assert bins == (Bin(pytest.approx(0.6), 0.5, 2), Bin(pytest.approx(0.9), 0.75, 2))  # type: ignore[arg-type]
    assert found.value == pytest.approx((0.1 + 0.15) / 2)
    assert found.low <= found.value <= found.high


def test_ties_cool_it_down() -> None:
    margins = np.array([3.0] * 10)
    assert temperature(margins, np.ones(10)) == pytest.approx(calibration.COLDEST, rel=0.01)
    assert temperature(margins, np.full(10, 0.5)) == pytest.approx(calibration.HOTTEST, rel=0.01)


def test_too_few_say_nothing() -> None:
    assert calibrate(*rows(29, 1.0)) is None
    assert calibrate(*rows(40, 1.0, per_group=20)) is not None  # two groups: comparisons are the clusters
    one, scores = rows(40, 1.0)
    assert calibrate([{**row, "group": "g", "comparison_id": "c"} for row in one], scores) is None


def test_each_half_is_judged_by_the_other_however_few_there_are() -> None:
    made, scores = rows(40, 8.0)
    for name in "abcdefgh":  # whatever the hashes of two comparisons are
        two = [{**row, "group": "g", "comparison_id": f"{name}{i % 2}"} for i, row in enumerate(made)]
        found = calibrate(two, scores)
        assert found is not None and found.after.value != found.before.value


def test_intervals_of_the_error_cover_its_value() -> None:
    found = [calibrate(*rows(300, 1.0, seed)) for seed in range(10)]
    assert all(one is not None and one.after.low <= one.after.value <= one.after.high for one in found)
