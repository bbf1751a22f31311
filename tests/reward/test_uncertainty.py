"""Standard deviations of scores: against the linear head's own, fewer with more votes, honest in simulation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.linear_head import LinearHead
from palate.reward.uncertainty import FILE, Uncertainty, check, fit, load

Row = dict[str, Any]


def world(
    n: int, seed: int = 0, size: int = 6, scale: float = 1.0
) -> tuple[list[np.ndarray], list[Row], np.ndarray]:
    """(states (2, size) of n comparisons, their rows with one vote each by Bradley-Terry, the true last layer)."""
    rng = np.random.default_rng(seed)
    w = scale * np.random.default_rng(seed + 1000).normal(size=size)
    states, rows = [], []
    for i in range(n):
        x = rng.normal(size=(2, size))
        won = int(rng.random() > 1 / (1 + np.exp(-(x[0] - x[1]) @ w)))
        pair = {"winner": won, "loser": 1 - won, "tie": False, "weight": 1.0}
        states.append(x)
        rows.append({"group": f"g{i}", "pairs": [pair]})
    return states, rows, w


def differences(states: list[np.ndarray], rows: list[Row]) -> np.ndarray:
    return np.array(
        [x[r["pairs"][0]["winner"]] - x[r["pairs"][0]["loser"]] for x, r in zip(states, rows, strict=True)]
    )


def test_at_the_mode_it_is_the_linear_heads_own() -> None:
    states, rows, _ = world(200)
    z = differences(states, rows)
    head = LinearHead.by_evidence(z, np.ones(len(z)))
    found = fit(states, rows, head.mean, "laplace")
    assert found is not None
    some = np.random.default_rng(3).normal(size=(50, 6))
    np.testing.assert_allclose(found.margin_sd(some), head.margin(some)[1], rtol=1e-3)
    mean = np.concatenate(states).mean(axis=0)
    np.testing.assert_allclose(found.sd(some), head.margin(some - mean)[1], rtol=1e-3)


@pytest.mark.parametrize("how", ["laplace", "ensemble"])
def test_more_votes_make_it_surer_and_distance_less(how: Any) -> None:
    probe = np.random.default_rng(5).normal(size=(100, 6))
    sds = []
    for n in (60, 240, 960):
        states, rows, w = world(n)
        found = fit(states, rows, w, how)
        assert found is not None
        sds.append(float(found.margin_sd(probe).mean()))
        np.testing.assert_allclose(found.margin_sd(3 * probe), 3 * found.margin_sd(probe), rtol=1e-5)
        assert found.sd(found.mean[None])[0] == pytest.approx(0, abs=1e-6)
    least = 1.5 if how == "laplace" else 1.3  # of 16 members a standard deviation is known to an eighth or so
    assert sds[0] > least * sds[1] > least**2 * sds[2]


@pytest.mark.parametrize("how", ["laplace", "ensemble"])
def test_intervals_hold_what_they_promise(how: Any) -> None:
    """95 % intervals of margins of new pairs, over 40 worlds in which the model is right."""
    inside = []
    for seed in range(40):
        states, rows, w = world(300, seed)
        z = differences(states, rows)
        head = LinearHead.by_evidence(z, np.ones(len(z)))
        found = fit(states, rows, head.mean, how, seed)
        assert found is not None
        probe = np.random.default_rng(seed + 7).normal(size=(200, 6))
        inside.append(np.mean(np.abs(probe @ (head.mean - w)) <= 1.96 * found.margin_sd(probe)))
    assert 0.90 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("how", ["laplace", "ensemble"])
def test_intervals_are_not_far_too_narrow_where_features_are_many(how: Any) -> None:
    """64 features and 300 votes: what votes do not say is the prior's to say, in every member."""
    inside = []
    for seed in range(6):
        states, rows, w = world(300, seed, 64, 1.5 / 8)
        z = differences(states, rows)
        head = LinearHead.by_evidence(z, np.ones(len(z)))
        found = fit(states, rows, head.mean, how, seed)
        assert found is not None
        probe = np.random.default_rng(seed + 7).normal(size=(200, 64))
        inside.append(np.mean(np.abs(probe @ (head.mean - w)) <= 1.96 * found.margin_sd(probe)))
    assert np.mean(inside) > 0.85


def test_flips_and_weights_say_less() -> None:
    states, rows, w = world(300)
    plain = fit(states, rows, w, "laplace")
    for changed in ({"flip": 0.3}, {"weight": 0.2}):
        less = [{**row, "pairs": [{**row["pairs"][0], **changed}]} for row in rows]
        found = fit(states, less, w, "laplace")
        assert found is not None and plain is not None
        assert found.margin_sd(np.eye(6)).mean() > 1.2 * plain.margin_sd(np.eye(6)).mean()


def test_nothing_to_learn_from() -> None:
    states, rows, w = world(5)
    ties = [{**row, "pairs": [{**row["pairs"][0], "tie": True}]} for row in rows]
    assert fit(states, ties, w, "laplace") is None


def test_saved_and_loaded(tmp_path: Path) -> None:
    states, rows, w = world(30)
    found = fit(states, rows, w, "laplace")
    assert found is not None
    found.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, Uncertainty)
    np.testing.assert_array_equal(again.sd(np.eye(6)), found.sd(np.eye(6)))
    (tmp_path / FILE).unlink()
    assert load(tmp_path) is None


@pytest.mark.parametrize("how", ["laplace", "ensemble"])
def test_the_two_ways_check_each_other(how: Any) -> None:
    states, rows, w = world(400)
    ways = [fit(states, rows, w, one) for one in ("laplace", "ensemble")]
    found, other = ways if how == "laplace" else ways[::-1]
    assert found is not None and other is not None
    outside = [x for x in np.random.default_rng(9).normal(size=(1000, 2, 6))]
    rng, held = np.random.default_rng(10), []
    for x in outside:
        won = int(rng.random() > 1 / (1 + np.exp(-(x[0] - x[1]) @ w)))
        held.append({"pairs": [{"winner": won, "loser": 1 - won, "tie": False}]})
    made = check(found, other, how, outside, held, w)
    assert made is not None and (made.how, made.pairs) == (how, 1000)
    z = differences(outside, held)
    assert made.mean_sd == pytest.approx(found.margin_sd(z).mean())
    assert made.other_mean_sd == pytest.approx(other.margin_sd(z).mean())
    assert made.rank_correlation is not None and made.rank_correlation > 0.5
    right, margin = z @ w > 0, np.abs(z @ w)
    assert made.by_margin == pytest.approx(right[margin >= np.sort(margin)[500]].mean())
    ratio = margin / found.margin_sd(z)
    assert made.surer == pytest.approx(right[ratio >= np.sort(ratio)[500]].mean())
    assert made.lines()[0].startswith("on the half of 1000 held-out pairs")
    assert set(made.record()) == {
        "how", "pairs", "mean_sd", "other_mean_sd", "rank_correlation", "surer", "by_margin"
    }  # fmt: skip
    assert check(found, other, how, outside[:29], held[:29], w) is None
