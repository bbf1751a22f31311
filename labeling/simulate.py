"""Rule-based annotators who vote through the same code as people, so that a loop can be tried without people.

They are not people and never count as such: `Annotator.kind` is `rule`, their votes carry the run's id. How
they judge is set by `SimulateConfig`: a taste (`palate.data.taste`), judgement noise, a margin below which
answers are equal, a lean to the answer shown first, and a share of votes given at random.

    palate simulate --taste vivid --annotators 4
    palate reward score --comparisons && palate simulate --scores reward-1      # a reward votes where nobody has
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from palate.config import SimulateConfig, UserError, as_dict
from palate.data.any_store import AnyStore
from palate.data.records import AnnotatorKind, Message, Run, Vote, digest
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.data.taste import TASTES
from palate.labeling.ballots import Answer, Ballot, Item
from palate.labeling.desk import Desk, annotator
from palate.labeling.remote_desk import RemoteDesk
from palate.labeling.selection.learner import Settings
from palate.labeling.selection.selector import Selector, check_selection
from palate.project import Project
from palate.runs import ActiveRun

BATCH = 64  # votes per transaction
Score = Callable[[str, str], float]  # (prompt text, completion text) -> higher is better

_CANDIDATES = """
SELECT c.id AS comparison_id, p.messages, list(m.text ORDER BY m.id) AS texts, any_value(c.run_id) AS run_id
FROM comparison c JOIN prompt p ON p.id = c.prompt_id JOIN completion m ON list_contains(c.completion_ids, m.id)
WHERE c.purpose IN ('train', 'random')
  AND c.id NOT IN (SELECT comparison_id FROM current_vote WHERE verdict <> 'skip')
GROUP BY c.id, p.messages ORDER BY c.id
"""


@dataclass(frozen=True)
class Tally:
    """What the simulated votes came to; the figures that the run reports."""

    votes: int = 0
    pairs: int = 0  # decisive pairs on which the noiseless taste has an opinion
    as_taste: int = 0  # of these, decided as the noiseless taste would
    longer: int = 0  # of these, won by the longer answer: the control

    def add(self, pairs: int, as_taste: int, longer: int) -> "Tally":
        """The tally with one more vote."""
        return Tally(self.votes + 1, self.pairs + pairs, self.as_taste + as_taste, self.longer + longer)


def run(project: Project, config: SimulateConfig) -> Run:
    """Let the annotators answer what is open; returns the run."""
    if config.scores is not None:
        config = replace(config, annotators=1, overlap=0.0, noise=0.0)
    _check(config)
    check_selection(config.select, config.random_share, 0.0)
    with project.store() as store:
        rows = store.table(_CANDIDATES)
    if rows.num_rows == 0:
        raise UserError("no comparison waits for a vote: make some with `palate sample`")
    with project.store() as store:
        score = TASTES[config.taste].score if config.scores is None else _stored(store, config.scores, rows)
    voters = f"rule-based annotators (taste {config.taste}), marked as rule"
    if config.scores is not None:
        voters = f"annotator, the reward {config.scores}, marked as model"
    brought = {run_id for run_id in rows["run_id"].to_pylist() if run_id}
    parents = (*sorted(brought), *([config.scores] if config.scores else []))
    with project.start("simulate", as_dict(config), parents, config.seed) as active:
        print(f"takes:  {rows.num_rows} open comparisons from {', '.join(parents) or 'imports'}")
        active.freeze("candidates", rows)
        with project.store() as store:
            tally = _vote_all(store, active, config, score, _open_overlap(store, config, rows, score))
        share, longer = (n / max(tally.pairs, 1) for n in (tally.as_taste, tally.longer))
        active.metrics(votes=tally.votes, pairs=tally.pairs, agrees_with_taste=share, longer_wins=longer)
        print(
            f"made:   {tally.votes} votes by {config.annotators} {voters}, run {active.id}\n"
            f"        {share:.1%} of {tally.pairs} decisive pairs as they would without noise; "
            f"the longer answer won {longer:.1%}\n"
            "next:   palate stats, then palate reward"
        )
    return active.record


def judge(
    item: Item, score: Score, spread: float, config: SimulateConfig, rng: np.random.Generator
) -> Answer:
    """One annotator's answer to one item. `spread` is the taste's standard deviation over all candidates."""
    letters = [letter for letter, _ in item.answers]
    prompt = prompt_text(item.messages)
    values = np.array([score(prompt, text) for _, text in item.answers]) / spread
    values = values + rng.normal(0.0, config.noise, len(values))
    values[0] += config.side_bias
    if rng.random() < config.laziness:
        values = rng.normal(0.0, 1.0, len(values))
    order = sorted(range(len(values)), key=lambda i: -values[i])
    tiers: list[list[int]] = [[order[0]]]
    for i in order[1:]:  # equal to the best of the tier, not to its neighbour: ties don't chain
        if values[tiers[-1][0]] - values[i] < config.tie_margin:
            tiers[-1].append(i)
        else:
            tiers.append([i])
    if len(tiers) == 1:
        return Answer("tie")
    ranking = tuple(tuple(letters[i] for i in sorted(tier)) for tier in tiers)
    gap = values[order[0]] - values[order[-1]]
    strength = 1 + int(gap >= 0.75) + int(gap >= 1.5) if len(values) == 2 else None
    return Answer("ranked", ranking, strength)


def prompt_text(messages: Sequence[Message]) -> str:
    """What a taste is asked about: the last user turn."""
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")


def _check(config: SimulateConfig) -> None:
    if config.taste not in TASTES:
        raise UserError(f"there is no taste '{config.taste}'; there are {', '.join(TASTES)}")
    if config.annotators < 1:
        raise UserError(f"--annotators must be at least 1, got {config.annotators}")
    if config.votes is not None and config.votes < 1:
        raise UserError(f"--votes must be at least 1, got {config.votes}")
    for flag, share in (("overlap", config.overlap), ("laziness", config.laziness)):
        if not 0 <= share <= 1:
            raise UserError(f"--{flag} is a share between 0 and 1, got {share}")
    for flag, amount in (("noise", config.noise), ("tie-margin", config.tie_margin)):
        if amount < 0:
            raise UserError(f"--{flag} can't be negative, got {amount}")


def _stored(store: AnyStore, run_id: str, rows: pa.Table) -> Score:
    """A reward's scores by prompt and text; every open answer must have one."""
    found = store.rows(
        "SELECT p.messages, m.text, s.mean FROM score s JOIN completion m ON m.id = s.completion_id "
        "JOIN prompt p ON p.id = m.prompt_id WHERE s.run_id = ?",
        [run_id],
    )
    scores = {(prompt_text(json.loads(row["messages"])), row["text"]): float(row["mean"]) for row in found}
    asked = rows.select(["messages", "texts"]).to_pylist()
    wanted = [(prompt_text(json.loads(row["messages"])), text) for row in asked for text in row["texts"]]
    if missing := sum(one not in scores for one in wanted):
        raise UserError(
            f"{missing} of {len(wanted)} answers have no score by {run_id}: "
            f"palate reward score --comparisons --reward {run_id}"
        )
    return lambda prompt, text: scores[prompt, text]


def _open_overlap(store: AnyStore, config: SimulateConfig, rows: pa.Table, score: Score) -> tuple[int, float]:
    """Ask a second annotator about a random share; returns (votes to cast, the scores' spread)."""
    values = []
    for row in rows.select(["messages", "texts"]).to_pylist():
        prompt = prompt_text(json.loads(row["messages"]))
        values += [score(prompt, text) for text in row["texts"]]
    spread = float(np.std(values))
    if spread == 0.0:
        raise UserError(
            f"{config.scores or f'the taste {config.taste!r}'} finds all {len(values)} answers equal; nothing can be "
            "ranked by it"
        )
    twice: list[str] = []
    if config.annotators > 1:
        ids = rows["comparison_id"].to_pylist()
        twice = random.Random(config.seed).sample(ids, round(config.overlap * len(ids)))
        store.raise_overlap(twice, 2)
    return config.votes or rows.num_rows + len(twice), spread


def _vote_all(
    store: AnyStore, active: ActiveRun, config: SimulateConfig, score: Score, goal: tuple[int, float]
) -> Tally:
    """The annotators take turns until the votes are cast or nothing is open for any of them."""
    votes, spread = goal
    names = [f"{config.taste}-{number + 1}" for number in range(config.annotators)]
    if config.scores is not None:
        names = [config.scores]
    kind: AnnotatorKind = "rule" if config.scores is None else "model"
    people = [annotator(store, name, kind).id for name in names]
    orders = random.Random(config.seed)  # of the answers on the screen
    rng = np.random.default_rng(config.seed)
    share = max(
        1, min(BATCH, -(-votes // len(people)))
    )  # everyone gets their part of a small number of votes
    tally = Tally()
    selector = _selector(store, config)
    share = 1 if selector is not None else share  # the next one is chosen when the last is known
    with _desk(store, selector) as desk, tqdm(total=votes, unit="vote", disable=None, leave=False) as bar:
        while people and tally.votes < votes:
            person = people.pop(0)
            items = desk.next_items(person, orders, min(share, votes - tally.votes))
            if not items:
                continue  # nothing open for this one any more
            people.append(person)
            answers = [judge(item, score, spread, config, rng) for item in items]
            ballots = [_ballot(active.id, item, answer) for item, answer in zip(items, answers, strict=True)]
            votes_cast = desk.cast_all(person, ballots, active.id)
            if selector is not None:
                selector.heard([vote for vote in votes_cast if isinstance(vote, Vote)])
                selector.refresh()
            for item, answer in zip(items, answers, strict=True):
                tally = tally.add(*_compare(item, answer, score))
            bar.update(len(items))
    if selector is not None:
        print(f"        {selector.notice()}")
    return tally


def _desk(store: AnyStore, selector: Selector | None) -> Desk | RemoteDesk:
    """The desk of whoever owns the database."""
    if isinstance(store, RemoteStore):
        return RemoteDesk(store)
    assert isinstance(store, Store)
    return Desk(store, selector=selector)


def _selector(store: AnyStore, config: SimulateConfig) -> Selector | None:
    """Who chooses, when that is asked for; a running server has its own."""
    if config.select == "random":
        return None
    if not isinstance(store, Store):
        raise UserError("beside a running palate label it chooses by its own --select: leave yours out")
    selector = Selector(store, Settings(config.select, config.random_share, config.control, seed=config.seed))
    selector.refresh()
    if selector.missing is not None:
        raise UserError(f"--select {config.select}: {selector.missing}")
    return selector


def _ballot(run_id: str, item: Item, answer: Answer) -> Ballot:
    vote_id = digest(
        "vote", run_id, item.assignment_id
    )  # the same seed in the same project gives the same ids
    return Ballot(
        answer.verdict, answer.ranking, answer.strength, vote_id=vote_id, assignment_id=item.assignment_id
    )


def _compare(item: Item, answer: Answer, score: Score) -> tuple[int, int, int]:
    """(decisive pairs the taste has an opinion on, of these as the taste, of these won by the longer answer)."""
    prompt, texts = prompt_text(item.messages), dict(item.answers)
    pairs = as_taste = longer = 0
    for winner, loser in _decisive(answer):
        difference = score(prompt, texts[winner]) - score(prompt, texts[loser])
        if difference:
            pairs += 1
            as_taste += difference > 0
            longer += len(texts[winner]) > len(texts[loser])
    return pairs, as_taste, longer


def _decisive(answer: Answer) -> Iterator[tuple[str, str]]:
    for better, worse in combinations(answer.ranking, 2):
        yield from ((winner, loser) for winner in better for loser in worse)
