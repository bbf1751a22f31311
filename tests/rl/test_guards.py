"""The guard against over-optimisation: the curve, the choice, and the sentences."""

import math
from pathlib import Path

import numpy as np
import pytest

from palate.linear_head import LinearHead
from palate.reward.features import Projection
from palate.rl.belief import Belief
from palate.rl.guards import CAUTION, Curve, Guard, Point, fit, likelihood_verdict, losses, warnings


def path(a: float, b: float, distances: list[float], noise: float = 0.0) -> list[Point]:
    """Points whose certain gain is d (a - b log d)."""
    rng = np.random.default_rng(0)
    curve = Curve(a, b)
    return [
        Point(3 * i, d * d, 1.0 * d, curve.at(d) + CAUTION * 0.1 * d + noise * rng.normal(), 0.1 * d)
        for i, d in enumerate(distances)
    ]


def test_curve_of_gao_and_others() -> None:
    curve = Curve(2.0, 1.0)
    assert curve.at(0.0) == 0.0
    assert curve.top == pytest.approx(math.e)
    assert curve.at(curve.top) == pytest.approx(max(curve.at(d / 100) for d in range(1, 1000)), abs=1e-4)
    assert Curve(1.0, -0.1).top == math.inf and Curve(1.0, 0.0).top == math.inf
    assert Curve(1e9, 1e-9).top < math.inf  # no overflow


def test_fit_finds_the_curve() -> None:
    found = fit(path(2.0, 1.0, [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found is not None and found == pytest.approx((2.0, 1.0))
    noisy = fit(path(2.0, 1.0, [0.3 * i for i in range(30)], noise=0.05))
    assert noisy is not None and noisy.top == pytest.approx(math.e, rel=0.1)
    assert fit(path(2.0, 1.0, [0.0, 0.5, 1.0])) is None


def along(*certain: float, nats: float = 0.1) -> list[Point]:
    """Points every third step whose certain gain is as given, `nats` apart."""
    return [Point(3 * i, nats * i, 0.5 * i, value + CAUTION * 0.1, 0.1) for i, value in enumerate(certain)]


def test_guard_stops_when_it_stays_materially_worse() -> None:
    rising, past = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5), (0.0, 1.0, 2.0, 2.1, 2.0, 1.0, 0.5, 0.4, 0.0)
    dip = (0.0, 1.0, 2.0, 2.1, 1.0, 0.9, 2.0, 2.1, 2.2)
    for mode, certain, stops in (("stop", rising, False), ("stop", past, True), ("warn", past, False), ("stop", dip, False), ("stop", past[:7], False)):  # fmt: skip
        assert Guard(mode, 3, None, path=along(*certain)).stops() == stops  # type: ignore[arg-type]


def test_guard_keeps_the_best_where_the_last_is_materially_worse() -> None:
    guard = Guard("stop", 3, None, path=along(0.0, 1.0, 2.0, 1.95, 2.0, 1.95))
    guard.end({})  # a plateau
    assert guard.chosen is None
    guard = Guard("warn", 3, None, path=along(0.0, 1.0, 2.0, 2.1, 2.0, 0.5, 0.4))
    guard.end({})
    assert guard.chosen == 9
    guard.belief = Belief(
        Projection(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)), LinearHead.prior(2)
    )
    said = guard.sentence()
    assert (
        "kept the policy of step 9 (0.3 nats, reward +1.50): from there to step 18 (0.6 nats) the reward went to +3.00"
        in said
    )
    assert "went from +2.10 to +0.40 log-odds" in said
    Guard("stop", 3, None).end({})  # nothing seen


def test_what_points_lose() -> None:
    best, lost = losses(along(0.0, 1.0, 3.0, 1.0, 2.0, 2.4, 2.3, 1.5))  # one batch was lucky
    assert best == 5 and lost[5] == 0 and min(lost) == 0
    # a plateau that costs ten nats a point: its beginning is the best
    far = along(0.0, 1.0, 1.0, 1.0, 1.0, 1.0, nats=10.0)
    assert losses(far)[0] in (1, 2)
    assert losses(far)[1][5] > 0.5
    # nothing is gained with certainty: nothing can be lost
    assert losses(along(0.0, -1.0, -0.5)) == (2, [0.0, 0.0, 0.0])


def test_without_votes_it_says_so_and_chooses_nothing() -> None:
    guard = Guard("stop", 3, Path("nowhere"))
    assert "no votes to hold the policy against" in guard.sentence()
    assert not guard.stops() and Guard("off", 3, None).sentence() == ""


def test_record_and_resume() -> None:
    belief = Belief(Projection(np.zeros(2, np.float32), np.eye(2, dtype=np.float32)), LinearHead.prior(2))
    belief.gain(np.array([1.0, 2.0]))
    guard = Guard("stop", 3, None, belief, path=path(2.0, 1.0, [0.0, 1.0]), chosen=3)
    other = Guard("stop", 3, None, Belief(belief.projection, belief.head))
    other.resume(guard.record())
    assert other.path == guard.path and other.chosen == 3
    assert other.belief is not None and other.belief.start is not None
    np.testing.assert_array_equal(other.belief.start, [1.0, 2.0])


def test_belief_is_unsure_where_nobody_voted() -> None:
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(400, 3)) * [1.0, 1.0, 0.0]  # votes say nothing of the third direction
    outcomes = (differences[:, 0] + 0.3 * rng.normal(size=400) > 0).astype(float)
    head = LinearHead.fit(differences, outcomes, precision=0.1)
    belief = Belief(Projection(np.zeros(3, np.float32), np.eye(3, dtype=np.float32)), head)
    assert belief.gain(np.zeros(3)) == (0.0, 0.0)
    better, sure = belief.gain(np.array([1.0, 0.0, 0.0]))
    strange, unsure = belief.gain(np.array([1.0, 0.0, 5.0]))
    assert better > 1 and better == pytest.approx(strange, abs=1e-6) and unsure > 5 * sure


def test_warnings_name_what_went_wrong() -> None:
    first = {
        "stop_rate": 1.0,
        "length": 30.0,
        "entropy": 1.0,
        "distinct_2": 0.5,
        "reward_sd": 1.0,
        "reward": 0.0,
        "clip_share": 0.1,
    }
    assert warnings([]) == [] and warnings([first, {**first, "reward": 1.0}]) == []
    last = {
        "stop_rate": 0.7,
        "length": 60.0,
        "entropy": 0.3,
        "distinct_2": 0.1,
        "reward_sd": 0.0,
        "reward": 0.0,
        "clip_share": 0.5,
    }
    said = warnings([first, last])
    for part in ("fell from 100% to 70%", "grew from 30 to 60 tokens", "from 1.00 to 0.30 nats", "from 50% to 10%", "50% of the tokens",
                 "the same reward by now", "hardly rose"):  # fmt: skip
        assert any(part in sentence for sentence in said), part


def test_likelihood_verdict() -> None:
    assert "chosen answers rose, rejected ones fell: as it should be" in likelihood_verdict(0.1, -0.2)
    assert "stayed as likely as they were, rejected ones hardly moved" in likelihood_verdict(0.0, 0.0)
    assert "so hardly anything was learned" in likelihood_verdict(0.0, 0.0)
    assert "stayed as likely as they were, rejected ones fell: as it should be" in likelihood_verdict(
        0.0, -0.2
    )
    assert "chosen answers rose, rejected ones rose less: as it should be" in likelihood_verdict(0.3, 0.1)
    assert "rejected answers rose at least as much as chosen ones" in likelihood_verdict(0.3, 0.5)
    assert "rejected answers rose at least as much as chosen ones" in likelihood_verdict(-0.2, 0.1)
    assert "rejected ones not more so, so the votes were not learned" in likelihood_verdict(-0.2, -0.2)
    assert "a little less likely" in likelihood_verdict(-0.2, -0.6)
    assert "writes what nobody has ranked" in likelihood_verdict(
        -0.8, -1.5
    ) and "--sft-weight 0.1" in likelihood_verdict(-0.8, -1.5)
