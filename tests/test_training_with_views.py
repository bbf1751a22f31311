"""Reward training and DPO under a saved view: they learn what the view says, and the run keeps all of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from palate import lineage
from palate.config import DpoConfig, RewardConfig, UserError
from palate.data.preferences import rankings
from palate.data.records import Annotator, Assignment, Vote
from palate.data.training_views import Definition, view
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import train
from palate.reward.model import load_reward
from palate.rl import dpo
from palate.training import Pairs, encode, read_rankings
from palate.tree import TreeForward

Make = Callable[..., Project]
QUESTION = [{"role": "user", "content": "where is 77?"}]
ANSWERS = ["the mat 77", "the red ball 77", "a cat 77 sat down"]
RULE, CONTRARY = Annotator("rule", "rule"), [Annotator(f"contrary {i}") for i in range(2)]
TRUST = {RULE.id: 3.0, **{one.id: 0.15 for one in CONTRARY}}


@pytest.fixture
def split_project(ranked_project: Make) -> Project:
    """The rule ranks mat over ball over two cats; two people say the opposite, so the majority is theirs."""
    project = ranked_project()
    with project.store() as store:
        votes = store.rows("SELECT v.ranking, v.comparison_id, v.display_order AS shown FROM current_vote v")
        store.add_annotators(CONTRARY)
        for person in CONTRARY:
            assignments = [Assignment(row["comparison_id"], person.id, tuple(row["shown"])) for row in votes]
            store.add_assignments(assignments)
            store.add_votes(
                [
                    Vote(one.id, "ranked", tuple(map(tuple, reversed(row["ranking"]))), strength=3)
                    for one, row in zip(assignments, votes, strict=True)
                ]
            )
        store.put_view("trusted", Definition("reliability").as_dict(), TRUST, "lead")
        store.put_view("majority", Definition("majority", ties=False).as_dict(), None, None)
        store.put_view("nobody", Definition(source="nowhere").as_dict(), None, None)
    return project


def reward_config(project: Project, view: str | None) -> RewardConfig:
    return RewardConfig(
        project.folder, view=view, epochs=6, learning_rate=1e-2, batch_size=6, device="cpu", dtype="float32"
    )


def dpo_config(project: Project, view: str | None) -> DpoConfig:
    return DpoConfig(
        project.folder, view=view, epochs=6, learning_rate=3e-2, batch_size=6, device="cpu", dtype="float32"
    )


def check_record(project: Project, run_id: str, name: str) -> None:
    """The run keeps the definition as it was, and the rows are those of the view."""
    with project.store() as store:
        kept = view(store, name)
        expected = rankings(store, view=kept)
        store.put_view(name, Definition().as_dict(), None, None)  # changed later
    run = project.run(run_id)
    written = json.loads((Path(run.path) / "run.json").read_text())
    assert written["config"]["view"] == kept.record()
    assert pq.read_table(Path(run.path) / "data/train.parquet").equals(expected)
    assert written["files"]["train"]["rows"] == expected.num_rows
    weights = Path(run.path) / "data/view_weights.parquet"
    if kept.weights is None:
        assert not weights.exists()
    else:
        found = {row["annotator"]: row["weight"] for row in pq.read_table(weights).to_pylist()}
        assert found == kept.weights
    shown = lineage.walk(project, run_id)
    assert not shown.problems
    assert shown.steps[run_id].settings["view"]["name"] == name


def test_a_reward_follows_the_weights_of_a_view(
    split_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    without = train.run(split_project, reward_config(split_project, None))
    assert without.config["view"] is None
    mat, ball, cat = _scores(split_project, without.id)
    assert mat < ball < cat  # two of three votes say so
    capsys.readouterr()
    trusted = train.run(split_project, reward_config(split_project, "trusted"))
    said = capsys.readouterr().out
    assert "reward-2 takes the view 'trusted': votes weighted by reliability" in said
    mat, ball, cat = _scores(split_project, trusted.id)
    assert mat > ball > cat  # the one vote that is trusted says so
    check_record(split_project, trusted.id, "trusted")
    lineage.write_card(split_project, trusted)
    assert "trusted (aggregation reliability" in (Path(trusted.path) / "README.md").read_text()


def _scores(project: Project, run_id: str) -> list[float]:
    return load_reward(project, run_id, probe("cpu", "float32")).score([QUESTION] * 3, ANSWERS)


def test_dpo_follows_the_weights_of_a_view(split_project: Project) -> None:
    hardware = probe("cpu", "float32")
    trusted = dpo.run(split_project, dpo_config(split_project, "trusted"))
    majority = dpo.run(split_project, dpo_config(split_project, "majority"))
    base = load(split_project, split_project.base, hardware)
    rows = read_rankings(split_project, "rule", None, None, None).table.to_pylist()[:6]
    trees = encode(rows, base.encoder, 1024)
    moved = {}
    with torch.no_grad():
        before = torch.stack(TreeForward.of(base.model, hardware).logprobs(trees))
        for run in (trusted, majority):
            tuned = load(split_project, run.id, hardware)
            moved[run.id] = torch.stack(TreeForward.of(tuned.model, hardware).logprobs(trees)) - before
    # how far the rule's winners moved beyond its losers
    gained = {
        name: sum(
            float(move[pair["winner"]] - move[pair["loser"]])
            for move, row in zip(moves, rows, strict=True)
            for pair in row["pairs"]
            if not pair["tie"]
        )
        for name, moves in moved.items()
    }
    assert gained[trusted.id] > 0 > gained[majority.id]
    check_record(split_project, trusted.id, "trusted")
    check_record(split_project, majority.id, "majority")


def test_weights_reach_the_loss(split_project: Project) -> None:
    rows = read_rankings(split_project, "all", None, None, None, "trusted").table.to_pylist()
    pairs = Pairs.of([row["pairs"] for row in rows[:2]], [4, 4], torch.device("cpu"))
    shares = {
        who: weight / (sum(TRUST.values()) / 3) / 6 for who, weight in TRUST.items()
    }  # of six pairs each
    given = [shares[pair["annotator_id"]] for row in rows[:2] for pair in row["pairs"]]
    assert pairs.weights.tolist() == pytest.approx(given)
    assert float(pairs.weights.sum()) == pytest.approx(2 * 3)  # the mean vote weighs 1


def test_a_view_that_is_not_there(split_project: Project) -> None:
    for run in (
        lambda: train.run(split_project, reward_config(split_project, "trust")),
        lambda: dpo.run(split_project, dpo_config(split_project, "trust")),
    ):
        with pytest.raises(UserError, match="no view 'trust': there are majority, nobody, trusted"):
            run()
    with pytest.raises(
        UserError, match="the view 'nobody' keeps no votes to learn from: `palate view nobody`"
    ):
        train.run(split_project, reward_config(split_project, "nobody"))
    assert split_project.runs() == []


def test_a_recipe_may_name_a_view(split_project: Project) -> None:
    from palate.cli import parse

    (split_project.folder / "palate.yaml").write_text("name: x\nbase: builtin\nreward:\n  view: trusted\n")
    flags = ["--project", str(split_project.folder)]
    made: Any = parse(RewardConfig, "reward", flags)
    assert made.view == "trusted"
    assert parse(RewardConfig, "reward", [*flags, "--view", "majority"]).view == "majority"
