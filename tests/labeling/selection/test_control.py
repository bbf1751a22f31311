"""Choosing goes off when votes are noise or choices are none, and stays on where it helps."""

import numpy as np
import pytest

from palate.config import UserError
from palate.labeling.selection.control import EXPERIMENT, LATEST, Control, Verdict
from palate.labeling.selection.information import unsure
from palate.linear_head import LinearHead


def session(seed: int, flips: float, chooses: bool = True, votes: int = LATEST, size: int = 12) -> Verdict:
    """An annotator of a linear taste; `flips` 0.5 is noise; not `chooses`: choices are by chance."""
    rng = np.random.default_rng(seed)
    taste, pool = rng.normal(size=size), rng.normal(size=(1500, 2, size))
    head, control = LinearHead.prior(size, size), Control(pool, 0.15, seed)
    for number in range(1, votes + 1):
        chosen = rng.random() >= control.share
        options = rng.integers(0, len(pool), 300)
        place = options[np.argmax(unsure(head, pool[options]))] if chosen and chooses else options[0]
        z = pool[place, 0] - pool[place, 1]
        first = bool(z @ taste > 0) != bool(rng.random() < flips)
        verdict = control.add(head, pool[place], 0 if first else 1, 1 if first else 0, bool(chosen))
        head.update(z, float(first))
        assert verdict.votes == number
    return verdict


def test_noise_turns_choosing_off_within_200_votes() -> None:
    verdicts = [session(seed, 0.5) for seed in range(20)]
    assert sum(not verdict.on for verdict in verdicts) >= 16  # 90 % on the long run
    assert {verdict.reason for verdict in verdicts if not verdict.on} == {"skill"}


def test_choices_that_are_none_turn_it_off() -> None:
    verdicts = [session(seed, 0.1, chooses=False) for seed in range(20)]
    assert sum(not verdict.on for verdict in verdicts) >= 18


def test_choosing_stays_on_where_the_head_learns() -> None:
    assert sum(session(seed, 0.1).on for seed in range(20)) >= 17


def test_skill_that_shows_late_turns_choosing_on_again() -> None:
    head, rng = LinearHead(np.array([2.0, 0.0]), np.eye(2) * 0.01, 1.0), np.random.default_rng(0)
    control = Control(rng.normal(size=(50, 2, 2)), 0.15)
    pair = np.array([[1.0, 0], [0, 0]])
    for number in range(LATEST):  # coin flips
        control.add(head, pair, number % 2, 1 - number % 2, selected=False)
    assert control.verdict().reason == "skill" and control.share == 1.0
    for _ in range(400):  # from now on as the head says
        control.add(head, pair, 0, 1, selected=False)
    assert control.verdict().on and control.share == 0.15


def test_the_first_votes_are_an_experiment() -> None:
    assert Control(np.ones((1, 2, 3)), 0.15).share == EXPERIMENT
    assert Control(np.ones((1, 2, 3)), 0.7).share == 0.7


def test_the_same_votes_give_the_same_verdict() -> None:
    assert session(3, 0.1, votes=60) == session(3, 0.1, votes=60)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        Control(np.full((2, 2, 3), np.nan), 0.15)
    with pytest.raises(UserError, match="not finite"):
        Control(np.ones((2, 2, 3)), 0.15).add(LinearHead.prior(3), np.full((2, 3), np.inf), 0, 1, True)
