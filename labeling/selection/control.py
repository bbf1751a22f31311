"""Does choosing help? Measured while people vote; choosing goes off when it is not shown to help.

Three questions, each of which turns choosing off:

1. **Skill**: does the head predict votes at all, before they are cast? Each vote scores +-|2 p - 1|, by whether it went
   the head's way; of coin flips, or where features say nothing, the sum is of mean 0 and known variance. By LATEST
   votes it must be CLEAR standard errors above 0. Too little skill to be seen by then is not none for ever: a gambler
   goes on betting on each vote by the head's probability; on coin flips the stake is a martingale and
   P(it ever reaches 1 / ERROR) <= ERROR (Ville), so reaching it turns choosing on again.
2. **Yield**: is the order of what is chosen more open than that of what chance would give, per second? Each chosen
   vote is compared with the pool at that moment (`information.unsure`); the mean ratio's lower bound must be above
   1 + LEAST_GAIN by LATEST votes. It needs no outcomes, so their noise does not hide it: the accuracy of two heads on
   100 votes is +- 5 points, what is to be seen is 3.
3. **Harm**: that yield is the model's own opinion. Two heads of equally many votes, one of the first as they came, one of
   the first by chance, predict votes by chance that neither has seen; where the former is wrong more often beyond
   doubt, off, whatever 2 says. (Chosen votes alone would make a poor head: they lie across the direction that earlier
   votes had found, and say little about it.)

Until LATEST votes a larger share is given by chance (`EXPERIMENT`), for the sake of 3; then the configured one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.selection.information import checked, unsure
from palate.linear_head import Floats, LinearHead

LATEST = 200  # votes by which choosing has to be shown to help
CLEAR = 1.3  # standard errors: 10 % of coin flips look like skill
EXPERIMENT = 0.4  # share given by chance until then
ERROR = 0.05  # chance to ever go back to choosing on coin flips
LEAST_GAIN = 0.1  # a chosen vote must be this much more open than one by chance
SURE = 1.645  # standard errors, one-sided 95 %
HARM = 2.6  # standard errors, looked at several times
FEWEST = 30  # votes by chance before harm is asked for
LOOK = 50  # votes between two looks at harm
SAMPLE = 128  # comparisons of the pool that stand for it
STAKES = (0.25, 0.5, 1.0)  # of the head's own confidence: it is often too sure of itself


@dataclass(frozen=True)
class Verdict:
    """`on`: go on choosing. `reason`: skill, yield or harm when not. The figures are for the notice."""

    on: bool
    reason: str = ""
    votes: int = 0
    skill: float = 0.0  # standard errors by which votes go the head's way
    wealth: float = 1.0  # the gambler's highest; 1 / ERROR or more shows skill for good
    gain: float = 1.0  # how open chosen votes are, over votes by chance
    gain_low: float = 0.0  # its lower bound


class Control:
    """Fed with every vote before the head learns from it. Off for want of skill can end; off for yield or harm stays.

    `pool` (n, 2, D): pairs of completions as chance would give them, n >= 1; `random_share` 0..1; `only_skill`: yield
    and harm are not asked for, as pairs for DPO are meant to be certain and teach a head little.
    """

    def __init__(
        self, pool: NDArray[np.floating], random_share: float, seed: int = 0, only_skill: bool = False
    ) -> None:
        x = checked(pool)
        self._only_skill = only_skill
        rng = np.random.default_rng(seed)
        self._sample = x[rng.permutation(len(x))[:SAMPLE]]
        self._random_share = random_share
        self._stakes = np.zeros(len(STAKES))  # log wealth
        self._best = 0.0
        self._score, self._variance = 0.0, 0.0
        self._ratios: list[float] = []
        self._won: list[Floats] = []  # best less worst, in the order of votes
        self._chosen: list[bool] = []
        self.votes, self._reason = 0, ""

    @property
    def share(self) -> float:
        """Of comparisons to be given by chance now."""
        if self._reason:
            return 1.0
        return max(self._random_share, EXPERIMENT) if self.votes < LATEST else self._random_share

    def add(
        self,
        head: LinearHead,
        features: NDArray[np.floating],
        best: int | None,
        worst: int | None,
        selected: bool,
        seconds: float = 1.0,
        usual_seconds: float = 1.0,
    ) -> Verdict:
        """One vote on features (K, D), the head as it was before; `best` and `worst` are rows, None after a tie.

        `seconds` is what the comparison was predicted to take, `usual_seconds` the mean of the pool's.
        """
        x = checked(features)
        self.votes += 1
        if best is not None and worst is not None:
            z = x[best] - x[worst]
            self._bet(float(head.probability(z[None])[0]))
            self._won.append(z)
            self._chosen.append(selected)
        if selected:
            pool = float(unsure(head, self._sample).mean()) / usual_seconds
            mine = float(unsure(head, x[None])[0]) / seconds
            self._ratios.append(mine / max(pool, 1e-300))
        if self._reason == "skill" and self._best >= -np.log(ERROR):
            self._reason = ""
        self._reason = self._reason or self._why(head)
        return self.verdict()

    def verdict(self) -> Verdict:
        """As of now."""
        gain, low = self._gain()
        return Verdict(
            not self._reason, self._reason, self.votes, self._skill(), float(np.exp(self._best)), gain, low
        )

    def _bet(self, right: float) -> None:
        """The vote went the way to which the head gave the probability `right`."""
        edge = 2 * right - 1
        self._score, self._variance = self._score + edge, self._variance + edge**2
        self._stakes += np.log1p(np.array(STAKES) * (2 * min(max(right, 1e-6), 1 - 1e-6) - 1))
        self._best = max(self._best, float(np.logaddexp.reduce(self._stakes) - np.log(len(STAKES))))

    def _skill(self) -> float:
        return self._score / self._variance**0.5 if self._variance > 0 else 0.0

    def _gain(self) -> tuple[float, float]:
        if len(self._ratios) < 2:
            return 1.0, 0.0
        ratios = np.array(self._ratios)
        mean, error = ratios.mean(), ratios.std(ddof=1) / np.sqrt(len(ratios))
        return float(mean), float(mean - SURE * error)

    def _why(self, head: LinearHead) -> str:
        """Why choosing has to go off now, or nothing."""
        if self.votes == LATEST:
            if self._skill() < CLEAR and self._best < -np.log(ERROR):
                return "skill"
            if not self._only_skill and self._gain()[1] < 1 + LEAST_GAIN:
                return "yield"
        look = self.votes % LOOK == 0 and not self._only_skill
        if look and self.votes >= LATEST // 2 and self._harmful(head.precision):
            return "harm"
        return ""

    def _harmful(self, precision: float) -> bool:
        """Do votes as they came predict votes by chance worse than as many votes by chance do? Two folds of those."""
        if not self._won:
            return False
        z, chance = np.array(self._won), ~np.array(self._chosen)
        fold = np.where(chance, np.cumsum(chance) % 2, -1)
        losses = []
        for part in (0, 1):
            test, rest = z[fold == part], z[chance & (fold != part)]
            if min(len(test), len(rest)) < FEWEST // 2:
                return False
            came = z[fold != part][: len(rest)]
            losses.append(_wrong(_head(came, precision), test) - _wrong(_head(rest, precision), test))
        worse = np.concatenate(losses)
        return bool(worse.mean() > HARM * max(worse.std(ddof=1), 1e-9) / np.sqrt(len(worse)))


def _head(won: Floats, precision: float) -> LinearHead:
    return LinearHead.fit(won, np.ones(len(won)), precision=precision)


def _wrong(head: LinearHead, won: Floats) -> Floats:
    """(n,) 1 where the head would have said the other one. Not log loss: open pairs make small margins."""
    return (won @ head.mean < 0).astype(np.float64)
