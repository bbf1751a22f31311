"""Review, Models: every panel on no votes, few votes, one model, many votes, rankings; quick and late alike."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import choix
import evalica
import numpy as np
import pytest

from palate.data.facts import Facts
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.data.store import Store
from palate.labeling.statistics import models_section
from palate.labeling.statistics.annotator_clusters import by_annotator
from palate.labeling.statistics.bradley_terry import clustered
from palate.labeling.statistics.model_votes import Counts
from palate.labeling.statistics.panels import Heat, Intervals, Panel, Section
from palate.labeling.statistics.plain import as_plain
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import standing
from palate.labeling.statistics.terminal import section_text

WORTH = {"big": 0.8, "mid": 0.2, "small": -0.2, "tiny": -0.8}


class Votes:
    """A store that is filled with votes on answers of named models."""

    def __init__(self, store: Store) -> None:
        self.store, self.items = store, 0
        self.held: dict[str, list[Any]] | None = None  # while many are made: written together

    def _add(self, kind: str, row: Any) -> None:
        if self.held is None:
            getattr(self.store, f"add_{kind}")([row])
        else:
            self.held.setdefault(kind, []).append(row)

    def item(self, models: list[str], texts: list[str] | None = None, source: str = "s") -> Comparison:
        """A new comparison with an answer of each model."""
        self.items += 1
        prompt = Prompt(({"role": "user", "content": f"q{self.items}"},), source=source)
        texts = texts or ["words " * (3 + place) for place in range(len(models))]
        answers = [
            Completion(prompt.id, f"{text}{place}", model=model)
            for place, (model, text) in enumerate(zip(models, texts, strict=True))
        ]
        made = Comparison(prompt.id, tuple(one.id for one in answers))
        self._add("prompts", prompt)
        for answer in answers:
            self._add("completions", answer)
        self._add("comparisons", made)
        return made

    def vote(self, item: Comparison, ranking: list[list[int]], name: str = "ann", **fields: Any) -> None:
        """Tiers of places within the item."""
        person = Annotator(name)
        self._add("annotators", person)
        seat = Assignment(item.id, person.id, item.completion_ids)
        self._add("assignments", seat)
        tiers = tuple(tuple(item.completion_ids[place] for place in tier) for tier in ranking)
        self._add("votes", Vote(seat.id, "ranked" if len(tiers) > 1 else "tie", tiers, **fields))

    def many(self, items: int, size: int = 2, ties: float = 0.15, seed: int = 0) -> None:
        """Items of random models, each judged by two of 25 people."""
        rng, self.held = np.random.default_rng(seed), {}
        for _ in range(items):
            models = [str(one) for one in rng.permutation(list(WORTH))[:size]]
            texts = ["words " * int(rng.integers(2, 30)) for _ in models]
            item = self.item(models, texts, source=f"s{rng.integers(2)}")
            for person in rng.permutation(25)[:2]:
                noise = rng.gumbel(size=size)
                worth = [WORTH[m] + len(t) / 100 + n for m, t, n in zip(models, texts, noise, strict=True)]
                tiers = [[int(place)] for place in np.argsort(worth)[::-1]]
                if rng.random() < ties:
                    tiers = [tiers[0] + tiers[1], *tiers[2:]]
                self.vote(item, tiers, f"person {person}")
        for kind, made in self.held.items():
            getattr(self.store, f"add_{kind}")(made)
        self.held = None


@pytest.fixture
def votes(tmp_path: Path) -> Iterator[Votes]:
    with Store(tmp_path / "palate.duckdb") as store:
        yield Votes(store)


@pytest.fixture
def facts(votes: Votes) -> Iterator[Facts]:
    with Facts(votes.store) as opened:
        yield opened


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """300 items of two answers and 60 of four."""
    with Store(tmp_path_factory.mktemp("full") / "palate.duckdb") as store:
        made = Votes(store)
        made.many(300)
        made.many(60, size=4, seed=1)
        with Facts(store) as opened:
            opened.refresh()
            yield opened


def panels(facts: Facts, scope: Scope | None = None) -> dict[str, Panel]:
    """By id, after checks that hold for all of them."""
    facts.refresh()
    found = models_section.panels(facts, scope or Scope())
    for panel in found:
        assert panel.question.endswith("?") and panel.read.endswith(".")
        assert bool(panel.answer) != bool(panel.missing), panel
        for sentence in (panel.answer or panel.missing, *panel.notes):
            assert sentence.endswith(".") and "nan" not in sentence and "None" not in sentence
    section = Section("models", "Models", tuple(found))
    assert json.dumps(as_plain(Scope(), [section]), allow_nan=False)
    assert found[0].question in section_text(section)
    return {panel.id: panel for panel in found}


def rows(panel: Panel, table: int = 0) -> list[dict[str, Any]]:
    return [dict(row) for row in panel.tables[table].rows]


def test_no_vote_one_vote_and_one_model(votes: Votes, facts: Facts) -> None:
    empty = panels(facts)
    assert list(empty) == ["better", "style"]
    assert empty["better"].missing == (
        f"No vote on a pair of answers yet: votes on {LEAST} items with answers of two models give a first order."
    )
    assert empty["style"].missing == f"An effect of style needs votes on {LEAST} items: {LEAST} more."
    votes.vote(votes.item(["only", "only"]), [[0], [1]])
    one = panels(facts)
    assert list(one) == ["better", "style"]
    assert one["better"].missing.startswith(
        "All answers that were voted on come from one model (only), so there is"
    )
    votes.vote(votes.item(["other", "other"]), [[0], [1]])
    assert panels(facts)["better"].missing == "No vote compares answers of two of the 2 models yet."
    votes.vote(votes.item(["only", "other"]), [[0, 1]])
    assert (
        panels(facts)["better"].missing
        == "Every vote between two models is a tie, so nothing orders them yet."
    )
    votes.vote(votes.item(["only", "other"]), [[1], [0]])
    few = panels(facts)
    assert few["better"].answer.startswith("other leads with 1,")
    assert few["better"].answer.endswith(f"but its votes are on 2 items: {LEAST - 2} more give an interval.")
    assert (
        few["one-percent"].missing
        == "1 % of the votes between models is less than one vote: 98 more are needed."
    )
    assert few["more-votes"].missing == (
        f"{LEAST - 2} more items for one of the first two models: both need votes on {LEAST}."
    )
    for model, rank in zip(rows(few["better"]), (1, 2), strict=True):
        assert (model["rank"], model["score_low"], model["rank_best"]) == (rank, None, None)


def test_scores_are_those_of_the_records(full: Facts) -> None:
    """From the store's own view of pairs to evalica's Newman, which is Davidson's model: another way altogether."""
    pairs = full.store.rows(
        "SELECT w.model AS winner, l.model AS loser, p.tie FROM preference p "
        "JOIN completion w ON w.id = p.winner JOIN completion l ON l.id = p.loser"
    )
    theirs = evalica.newman(
        [pair["winner"] for pair in pairs],
        [pair["loser"] for pair in pairs],
        [evalica.Winner.Draw if pair["tie"] else evalica.Winner.X for pair in pairs],
        tolerance=1e-13,
        limit=100_000,
    )
    log = np.log(theirs.scores)
    points = (1000 + 400 / np.log(10) * (log - log.mean())).sort_values(ascending=False)
    better = panels(full)["better"]
    table = rows(better)
    assert [row["model"] for row in table] == list(points.index)
    assert [row["score"] for row in table] == pytest.approx(list(points), abs=1e-3)
    won = {name: [] for name in WORTH}
    for pair in pairs:
        won[pair["winner"]].append(0.5 if pair["tie"] else 1)
        won[pair["loser"]].append(0.5 if pair["tie"] else 0)
    for row in table:
        assert row["votes"] == len(won[row["model"]])
        assert row["won"] == pytest.approx(np.mean(won[row["model"]]))
        assert row["score_low"] < row["score"] < row["score_high"]
        assert row["drawn_low"] < row["score"] < row["drawn_high"]
        assert 1 <= row["rank_best"] <= row["rank"] <= row["rank_worst"] <= 4
        assert row["href"] == f"?model={row['model']}"
    assert sum(row["first"] for row in table) == pytest.approx(1)
    assert better.answer.startswith(f"{table[0]['model']}, with 1,") or better.answer.startswith(
        "Most likely "
    )
    assert {figure.label: figure.value for figure in better.figures}["votes between two models"] == len(pairs)
    (plot,) = better.plots
    assert isinstance(plot, Intervals)
    assert plot.labels == [row["model"] for row in table]


def test_all_panels_of_many_votes(full: Facts) -> None:
    found = panels(full)
    assert list(found) == ["better", "style", "matrix", "one-percent", "more-votes", "rankings"]
    assert not any(panel.missing or panel.late for panel in found.values())
    (heat,) = found["matrix"].plots
    assert isinstance(heat, Heat)
    for i in range(4):
        assert heat.values[i][i] is None
        for j in range(i):
            share, other = heat.values[i][j], heat.values[j][i]
            assert share is not None and other is not None
            assert share + other == pytest.approx(1)
    assert found["style"].answer.startswith("An answer that is longer by a typical difference (")
    effects = rows(found["style"])
    assert [row["feature"] for row in effects] == ["length", "headers", "list items", "bold spans"]
    assert effects[0]["share_low"] > 0.5
    assert effects[1]["why"] == "no two answers that were compared differ in it"
    assert {row["model"] for row in rows(found["style"], 1)} == set(WORTH)
    assert sum(row["votes"] for row in rows(found["one-percent"])) <= 0.1 * 1320


def test_late_panels_are_the_whole_of_the_quick_ones(full: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = panels(full)
    monkeypatch.setattr(models_section, "AT_ONCE", 10)
    quick = panels(full)
    assert [id for id, panel in quick.items() if panel.late] == ["better", "style", "rankings"]
    assert list(quick) == list(at_once)
    kept = [row["model"] for row in rows(quick["better"])]
    assert "drawn" not in rows(quick["better"])[0]
    for id, make in models_section.LATE.items():
        assert make(full, Scope()) == at_once[id]
        assert not make(full, Scope()).late
    assert kept == [row["model"] for row in rows(at_once["better"])]


def test_rankings_against_choix(votes: Votes, facts: Facts) -> None:
    votes.many(120, size=3, ties=0)
    found = panels(facts)["rankings"]
    names, data = sorted(WORTH), []
    models = {row["id"]: row["model"] for row in votes.store.rows("SELECT id, model FROM completion")}
    for vote in votes.store.rows(
        "SELECT list_transform(ranking, lambda tier: tier[1]) AS ranked FROM current_vote ORDER BY id"
    ):
        data.append(tuple(names.index(models[one]) for one in vote["ranked"]))
    theirs = choix.ilsr_rankings(4, data)
    theirs = 1000 + 400 / np.log(10) * (theirs - theirs.mean())
    for row in rows(found):
        assert row["score"] == pytest.approx(theirs[names.index(row["model"])], abs=1e-3)
        assert row["score_low"] < row["score"] < row["score_high"]
    assert found.answer.startswith(f"Rankings put {rows(found)[0]['model']} first with 1,")
    assert {figure.label: figure.value for figure in found.figures} == {"rankings of three or more": 240}


def test_scope_and_what_never_counts(full: Facts, votes: Votes, facts: Facts) -> None:
    every, some = (panels(full, scope)["better"].figures[1].value for scope in (Scope(), Scope(source="s0")))
    assert isinstance(every, int) and isinstance(some, int)
    assert 0 < some < every
    assert "better" in panels(full, Scope("rule")) and panels(full, Scope("rule"))["better"].missing
    item = votes.item(["one", "two"])
    votes.vote(item, [[0], [1]])
    votes.vote(item, [[1], [0]], "lead", adjudicated=True)
    assert panels(facts)["better"].figures[1].value == 1


def test_models_without_a_name_and_with_strange_ones(votes: Votes, facts: Facts) -> None:
    for _ in range(2):
        votes.vote(votes.item(["", "a&b=?c"]), [[0], [1]])
    found = rows(panels(facts)["better"])
    assert [row["model"] for row in found] == ["(no name)", "a&b=?c"]
    assert [row["href"] for row in found] == ["?model=", "?model=a%26b%3D%3Fc"]
    assert any("Won or lost everything" in note for note in panels(facts)["better"].notes)


def test_groups_that_never_met(votes: Votes, facts: Facts) -> None:
    for winner in (0, 1, 0):
        votes.vote(votes.item(["a", "b"]), [[winner], [1 - winner]])
    votes.vote(votes.item(["c", "d"]), [[0], [1]])
    better = panels(facts)["better"]
    assert [row["rank"] for row in rows(better)] == [1, 2, None, None]
    assert [row["score"] for row in rows(better)][2:] == [None, None]
    assert "Without a score, as no chain of votes links them to the others: c and d." in better.notes


def test_intervals_by_annotator_against_rows_by_annotator(full: Facts) -> None:
    found = standing(full, Scope())
    votes = full.columns(
        "SELECT j.annotator, u.model_a AS a, u.model_b AS b, sign(j.grade)::INTEGER AS won "
        "FROM judgement j JOIN unit u ON u.code = j.unit WHERE NOT j.again AND NOT j.adjudicated"
    )
    one = Counts(
        4,
        *(votes[end].astype(np.int64) for end in "ab"),
        *((votes["won"] == way) * 1.0 for way in (1, -1, 0)),
    )
    expected = clustered(found.fit, one, votes["annotator"].astype(np.int64))
    again, people = by_annotator(full, Scope(), found)
    assert people == 25
    assert again.cov == pytest.approx(expected.cov, abs=1e-12)
    assert again.log_nu_se == pytest.approx(expected.log_nu_se, abs=1e-12)


def test_strengths_straight_from_the_judgements(full: Facts) -> None:
    fit, found = models_section.strengths(full, Scope()), standing(full, Scope())
    assert fit.beta == pytest.approx(found.fit.beta, abs=1e-9)
