"""What more votes would buy: a known curve, honest where nothing is gained, silent where little is known."""

from typing import Any

import numpy as np
import pytest

from palate.reward.learning_curve import curve, learning_curve

Row = dict[str, Any]


def world(
    n: int, seed: int, signal: float = 2.0, size: int = 24, prefix: str = "t"
) -> tuple[list[Row], dict[str, np.ndarray]]:
    rng = np.random.default_rng([seed, len(prefix), ord(prefix[0])])
    taste = np.random.default_rng(seed).normal(size=size) / size**0.5 * signal
    rows, features = [], {}
    for i in range(n):
        names = [f"{prefix}{i}a", f"{prefix}{i}b"]
        x = rng.normal(size=(2, size))
        features.update(zip(names, x, strict=True))
        won = int(rng.random() > 1 / (1 + np.exp(-(x[0] - x[1]) @ taste)))
        pair = {"winner": won, "loser": 1 - won, "tie": False, "weight": 1.0, "vote_id": f"v{prefix}{i}"}
        rows.append({"group": f"{prefix}{i}", "completion_ids": names, "pairs": [pair]})
    return rows, features


def test_the_curve_is_found() -> None:
    sizes = np.array([50.0, 100, 200, 400])
    a, b, c = curve(sizes, 0.8 - 1.2 * sizes**-0.6)
    assert (a, b, c) == pytest.approx((0.8, 1.2, 0.6), abs=1e-6)
    assert curve(sizes, np.full(4, 0.7))[1] == pytest.approx(0, abs=1e-9)


def test_gains_where_there_are_some() -> None:
    rows, features = world(200, 1)
    held, more = world(200, 1, prefix="h")
    found = learning_curve(rows, held, {**features, **more})
    assert found is not None
    assert found.votes == (20, 40, 80, 160)
    assert list(found.accuracy) == sorted(found.accuracy)
    assert 0 < found.gain < 12 and found.low < found.gain < found.high
    assert found.lines()[0].startswith(
        "500 more votes would buy about " if found.low > 0 else "no gain by 500"
    )
    assert set(found.record()) == {"votes", "accuracy", "gain", "low", "high", "doubled", "total"}
    here, there, twice = found.ahead([200, 700, 400])
    assert found.total == 200
    assert 100 * (there - here) == pytest.approx(found.gain)
    assert 100 * (twice - here) == pytest.approx(found.doubled)


def test_noise_gains_nothing() -> None:
    said = []
    for seed in range(8):
        rows, features = world(200, seed, signal=0.0)
        held, more = world(100, seed, signal=0.0, prefix="h")
        found = learning_curve(rows, held, {**features, **more})
        assert found is not None
        said.append(found.low > 0)
    assert sum(said) <= 1


def test_too_little_says_nothing() -> None:
    rows, features = world(90, 0)
    held, more = world(60, 0, prefix="h")
    every = {**features, **more}
    assert learning_curve(rows, held, every) is not None
    assert learning_curve(rows[:70], held, every) is None
    assert learning_curve(rows, held[:30], every) is None
    assert learning_curve([{**row, "group": "one"} for row in rows], held, every) is None
    assert learning_curve(rows, held, {}) is None
