"""What votes have taught so far, and in which order the waiting comparisons are worth asking. No threads, no store.

    learner = Learner(pool, Settings("information"))      # has learned from the pool's votes
    learner.learn(vote)                                   # one more: a rank-one step
    if learner.due: learner.refit()                       # now and then from all votes
    ranking = learner.ranking(waiting, out)               # best first; those out count as answered
    learner.control.share                                 # of comparisons to be given by chance now

A ranking of K completions is all its pairs, each of weight 2 / K: they are not independent. Annotators who were found
unreliable (palate.annotator_model) weigh less, and get what they do least badly (routing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palate import annotator_model
from palate.labeling.selection.control import Control, Verdict
from palate.labeling.selection.dpo_pairs import PESSIMISM
from palate.labeling.selection.information import checked, diversity, expected, margins, openness
from palate.labeling.selection.pool import Candidate, Cast, Pool
from palate.labeling.selection.routing import FEW, advantage, reliability
from palate.labeling.selection.seconds import Seconds
from palate.linear_head import Floats, LinearHead

Rule = Literal["information", "dpo"]
CANDIDATES = 1500  # that are looked at for one choice
REFIT = 20  # votes, and a tenth of all, between two fits by evidence
REPLAYED = 600  # of the pool's votes that the control is shown again at a start
PEOPLE_EVERY = 100  # votes between two looks at who is reliable
PEOPLE_SIZE = 64  # features for that, the first principal components
ASKED = 500  # prompts that diversity keeps away from, the latest
OUT = 64  # comparisons that are out and count as answered, the latest
ROUTED = 256  # of a ranking's best that are matched with an annotator


@dataclass(frozen=True)
class Settings:
    """`random_share` 0.05..1 stays by chance; `diversity` >= 0 weighs the distance to prompts asked already."""

    rule: Rule
    random_share: float = 0.15
    control: bool = True
    diversity: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Ranking:
    """Comparisons, best first, with what is thought of their margins (of pairs: mean size and sd, log-odds)."""

    ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()


class Learner:
    """A head, a clock, a control and what is known about people, fed with votes."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool, self._settings = pool, settings
        checked(pool.matrix)  # once for all
        self._rng = np.random.default_rng(settings.seed)
        self.clock = Seconds()
        self.eta: dict[str, float] = {}  # of annotators that are known well enough
        self._votes: dict[str, Cast] = {}  # by assignment: a changed vote takes the place of the old one
        self._since = 0  # votes since the last refit
        self._changed = False  # since then a vote was replaced
        self._people_at = 0  # votes when people were last looked at
        sample = self._pairs(pool.waiting) if pool.waiting else self._pairs(pool.votes)
        spread = float(np.mean((sample[:, 0] - sample[:, 1]) ** 2)) if len(sample) else 1.0
        size = max(pool.matrix.shape[1], 1)
        self.head = LinearHead.prior(size, max(spread, 1e-12) * size)
        some = [pool.waiting[i] for i in self._rng.permutation(len(pool.waiting))[:CANDIDATES]]
        self._usual = np.array([one.words for one in some]), np.array([len(one.rows) for one in some])
        self.control = Control(
            sample if len(sample) else np.zeros((1, 2, size)),
            settings.random_share, settings.seed, settings.rule == "dpo",
        )  # fmt: skip
        for vote in pool.votes[:REPLAYED]:
            self.learn(vote)
            if self.due:
                self.refit()
        for vote in pool.votes[REPLAYED:]:
            self._votes[vote.assignment] = vote
            self.clock.add(vote.words, len(vote.rows), vote.seconds)
        if len(pool.votes) > REPLAYED:
            self.refit()

    @property
    def votes(self) -> int:
        """That it has learned from."""
        return len(self._votes)

    @property
    def verdict(self) -> Verdict:
        """Whether choosing helps, as of now."""
        return self.control.verdict()

    @property
    def share(self) -> float:
        """Of comparisons to be given by chance now."""
        return self.control.share if self._settings.control else self._settings.random_share

    def learn(self, vote: Cast) -> None:
        """One vote, or a changed one."""
        known = vote.assignment in self._votes
        if not known:
            x = self._pool.matrix[list(vote.rows)]
            seconds = float(self.clock.predict(np.array([vote.words]), np.array([len(vote.rows)]))[0])
            usual = float(self.clock.predict(*self._usual).mean()) if len(self._usual[0]) else seconds
            self.control.add(self.head, x, vote.best, vote.worst, vote.selected, seconds, usual)
            self.clock.add(vote.words, len(vote.rows), vote.seconds)
        self._votes[vote.assignment] = vote
        self._since += 1
        if known:
            self._changed = True  # a step can't be taken back
            return
        weight = self._weight(vote)
        for winner, loser, outcome in vote.pairs:
            z = self._pool.matrix[winner].astype(np.float64) - self._pool.matrix[loser]
            self.head.update(z, outcome, weight)

    @property
    def due(self) -> bool:
        """Whether it is time for `refit`, which takes longer than `learn` and can wait until a ranking stands."""
        return self._changed or self._since >= max(REFIT, len(self._votes) // 10)

    def refit(self) -> None:
        """The head by evidence, from all votes; now and then after a look at who is reliable."""
        self._since, self._changed = 0, False
        if len(self._votes) - self._people_at >= PEOPLE_EVERY:
            self._people_at = len(self._votes)
            self._know_people()
        pairs = [(*pair, self._weight(vote)) for vote in self._votes.values() for pair in vote.pairs]
        winners, losers, outcomes, weights = zip(*pairs, strict=True)
        self.head = LinearHead.by_evidence(
            self._differences(winners, losers), np.array(outcomes), np.array(weights)
        )

    def ranking(self, waiting: Sequence[Candidate], out: Sequence[Candidate]) -> Ranking:
        """CANDIDATES of those that wait, drawn by chance, best first."""
        if len(waiting) > CANDIDATES:
            waiting = [waiting[i] for i in self._rng.choice(len(waiting), CANDIDATES, replace=False)]
        ahead = expected(self.head, [self._pool.matrix[list(one.rows)] for one in out[-OUT:]])
        found: list[tuple[float, str, float, float]] = []
        for size in sorted({len(one.rows) for one in waiting}):
            group = [one for one in waiting if len(one.rows) == size]
            x = self._pool.matrix[np.array([one.rows for one in group])]
            scores, mean, sd = self._scores(ahead, x, group)
            found += zip(scores.tolist(), [one.id for one in group], mean.tolist(), sd.tolist(), strict=True)
        found.sort(key=lambda one: (-one[0], one[1]))
        return Ranking(
            tuple(one[1] for one in found), tuple(one[0] for one in found),
            tuple(one[2] for one in found), tuple(one[3] for one in found),
        )  # fmt: skip

    def routed(self, ranking: Ranking, person: str, at_work: Sequence[str]) -> tuple[str, ...]:
        """The ranking as it is for this annotator, where some of those at work are known to be more reliable."""
        mine = self.eta.get(person)
        others = [self.eta[one] for one in at_work if one != person and one in self.eta]
        if mine is None or not others:
            return ranking.ids
        mean, sd = np.array(ranking.mean[:ROUTED]), np.array(ranking.sd[:ROUTED])
        scores = np.array(ranking.scores[:ROUTED]) * advantage(mean, sd, mine, np.array(others))
        order = np.argsort(-scores, kind="stable")
        return (*(ranking.ids[i] for i in order), *ranking.ids[ROUTED:])

    def _scores(
        self, head: LinearHead, x: NDArray[np.float32], group: Sequence[Candidate]
    ) -> tuple[Floats, Floats, Floats]:
        """(scores, mean size of the pairs' margins, their mean sd) of comparisons of K completions (n, K, D)."""
        mean, sd = margins(head, x)
        middle, wide = np.abs(mean).mean(axis=1), sd.mean(axis=1)
        if self._settings.rule == "dpo":
            return (np.abs(mean) - PESSIMISM * sd).mean(axis=1), middle, wide
        words = np.array([one.words for one in group])
        scores = openness(mean, sd).mean(axis=1) / self.clock.predict(words, np.full(len(x), x.shape[1]))
        if self._settings.diversity and self._votes:
            asked = np.array(
                [self._pool.matrix[list(v.rows)].mean(0) for v in list(self._votes.values())[-ASKED:]]
            )
            scores = scores * np.exp(self._settings.diversity * diversity(x.mean(axis=1), asked))
        return scores, middle, wide

    def _know_people(self) -> None:
        """How often each annotator names the better one; nothing where there are not two with FEW votes each."""
        counts: dict[str, int] = {}
        for vote in self._votes.values():
            counts[vote.annotator] = counts.get(vote.annotator, 0) + 1
        names = sorted(counts)
        if sum(count >= FEW for count in counts.values()) < 2:
            return
        code = {name: place for place, name in enumerate(names)}
        pairs = [
            (*pair, code[vote.annotator], 2 / len(vote.rows))
            for vote in self._votes.values()
            for pair in vote.pairs
        ]
        winners, losers, outcomes, by, weights = zip(*pairs, strict=True)
        z = self._differences(winners, losers)[:, :PEOPLE_SIZE]
        votes = annotator_model.Votes(
            z, np.arange(len(z)), np.array(by), np.array(outcomes), weight=np.array(weights)
        )
        found = annotator_model.fit(votes, len(names), lean=0.0)
        eta = reliability(found.eta, np.array([counts[name] for name in names]))
        self.eta = {name: float(value) for name, value in zip(names, eta, strict=True)}

    def _differences(self, winners: Sequence[int], losers: Sequence[int]) -> Floats:
        return np.asarray(self._pool.matrix[list(winners)], np.float64) - self._pool.matrix[list(losers)]

    def _weight(self, vote: Cast) -> float:
        """Of each pair of this vote: less for a longer ranking, less for an unreliable annotator."""
        return 2 / len(vote.rows) * (2 * self.eta.get(vote.annotator, 1.0) - 1)

    def _pairs(self, of: Sequence[Candidate | Cast]) -> Floats:
        """(n, 2, D) a pair of each, as chance would give them."""
        some = [of[i] for i in self._rng.permutation(len(of))[:1024]]
        rows = [self._rng.choice(one.rows, 2, replace=False) for one in some]
        return np.asarray(self._pool.matrix[np.array(rows, dtype=int).reshape(-1, 2)], dtype=np.float64)
