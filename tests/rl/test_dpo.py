"""`palate dpo` from votes to an adapter: it learns, says so, and refuses what can't work."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from palate.config import DpoConfig, UserError
from palate.data.records import Annotator, Assignment, Vote
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import annotators
from palate.reward.annotators import Annotators, Person
from palate.rl import dpo
from palate.rl.objective import Objective
from palate.training import encode, read_rankings
from palate.tree import TreeForward

Make = Callable[..., Project]


def config(project: Project, **changes: object) -> DpoConfig:
    plain = DpoConfig(
        project.folder, epochs=8, learning_rate=3e-2, batch_size=6, device="cpu", dtype="float32"
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_learns_from_rankings(ranked_project: Make, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    project = ranked_project(name)
    run = dpo.run(project, config(project))
    folder = Path(run.path)
    assert run.artefact == {"kind": "adapter", "path": "adapter", "base": project.base}
    # the last two batches hold 30 pairs of one rounding or another; the loss, which is smooth, is held closer
    assert run.metrics["accuracy"] > 0.85 and run.metrics["loss"] < 0.5
    assert run.metrics["held_out"]["scores"]["value"] > 0.7  # chance: 0.5
    assert run.metrics["held_out"]["pairs"] == 6 * 5  # the tied pair is left out
    said = capsys.readouterr().out
    assert "dpo-1: DPO on" in said and "held-out prompts" in said and "next: palate eval" in said

    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 24
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert steps[0]["distance"] == pytest.approx(0, abs=1e-3)

    # the cache holds the base's log-probabilities, and the saved adapter moves them the way the votes went
    cached = pq.read_table(folder / "data/reference_logprobs.parquet").to_pylist()
    rows = {
        row["comparison_id"]: row for row in read_rankings(project, "all", None, None, None)[0].to_pylist()
    }
    hardware = probe("cpu", "float32")
    base, tuned = load(project, project.base, hardware), load(project, run.id, hardware)
    trees = encode([rows[row["comparison_id"]] for row in cached], base.encoder, 1024)
    with torch.no_grad():
        before = TreeForward.of(base.model, hardware).logprobs(trees)
        after = TreeForward.of(tuned.model, hardware).logprobs(trees)
    torch.testing.assert_close(
        torch.stack(before), torch.tensor([row["logprobs"] for row in cached]), atol=1e-3, rtol=1e-4
    )
    right = [
        (after[i] - before[i])[pair["winner"]] > (after[i] - before[i])[pair["loser"]]
        for i, row in enumerate(cached)
        for pair in rows[row["comparison_id"]]["pairs"]
        if not pair["tie"]
    ]
    assert sum(right) / len(right) > 0.7


def test_the_same_seed_gives_the_same_weights(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    runs = [dpo.run(project, config(project, epochs=1)) for _ in range(2)]
    assert runs[0].dataset_hash == runs[1].dataset_hash
    adapters = [(Path(run.path) / "adapter/adapter_model.safetensors").read_bytes() for run in runs]
    assert adapters[0] == adapters[1]


def test_flips_come_from_the_reward_run_on_these_votes(
    ranked_project: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two more annotators, one contrary: left out; the other's votes are smoothed; the reward run is a parent."""
    project = ranked_project(prompts=12, held_out=4)
    people = [Annotator("steady"), Annotator("contrary")]
    with project.store() as store:
        rule = str(store.value("SELECT id FROM annotator"))
        votes = store.rows("SELECT v.ranking, v.comparison_id, v.display_order AS shown FROM current_vote v")
        store.add_annotators(people)
        for person, sign in zip(people, (1, -1), strict=True):
            assignments = [Assignment(row["comparison_id"], person.id, tuple(row["shown"])) for row in votes]
            store.add_assignments(assignments)
            store.add_votes(
                [
                    Vote(one.id, "ranked", tuple(map(tuple, row["ranking"][::sign])))
                    for one, row in zip(assignments, votes, strict=True)
                ]
            )
    with pytest.raises(UserError, match="none did: run `palate reward` first"):
        dpo.run(project, config(project, annotator_model="flips"))
    assert [(run.status, run.artefact) for run in project.runs()] == [("failed", {})]

    plain = Person(20, 0.9, 0.8, 0.95, 0.0, 0.1, 0.0, 0.1)
    known = Annotators({rule: plain, people[0].id: plain, people[1].id: replace(plain, eta=0.1)}, 0.5, 60)
    with project.start("reward", {}) as judge:
        judge.freeze("train", read_rankings(project, "all", None, None, None).table)
        known.save(judge.path)
    with project.start("reward", {}) as other:  # later, on no votes of these
        other.freeze("train", read_rankings(project, "all", None, None, None).table.slice(0, 0))
        known.save(other.path)
    run = dpo.run(project, config(project, annotator_model="flips"))
    assert (
        "annotators as reward-1 judged them: 33.3 % of the weight is left out; of the rest 10.0 %"
        in capsys.readouterr().out
    )
    assert "reward-1" in run.parents and "reward-2" not in run.parents
    assert annotators.load(Path(run.path)) == known
    assert run.metrics["accuracy"] > 0.8 and run.metrics["held_out"]["scores"]["value"] > 0.6

    nobody = Annotators({who: replace(plain, eta=0.2) for who in known.people}, 0.5, 60)
    nobody.save(judge.path)
    with pytest.raises(
        UserError, match="reward-1 takes every annotator of these votes to be worse than chance"
    ):
        dpo.run(project, config(project, annotator_model="flips"))


def test_rows_of_ties_alone_stay_when_flips_are_known_and_ties_count() -> None:
    def pair(tie: bool, weight: float) -> dict[str, object]:
        return {"winner": 0, "loser": 1, "tie": tie, "weight": weight, "annotator": "a", "vote_id": "v"}

    class Known(Annotators):
        def applied(self, rows, how):  # type: ignore[no-untyped-def]
            return list(rows)

    rows = [{"pairs": [pair(True, 1.0)]}, {"pairs": [pair(False, 1.0)]}, {"pairs": [pair(False, 0.0)]}]
    known = Known({}, 1.0, 3)
    assert dpo._with_flips(rows, Objective(0.3, ties="half"), "reward-1", known) == rows[:2]
    assert dpo._with_flips(rows, Objective(0.3), "reward-1", known) == rows[1:2]


def test_ties_alone_are_refused(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    with project.store() as store:
        votes = store.rows("SELECT id, assignment_id, display_order AS shown FROM current_vote")
        store.add_votes(
            [
                Vote(vote["assignment_id"], "ranked", (tuple(vote["shown"]),), supersedes=vote["id"])
                for vote in votes
            ]
        )
    with pytest.raises(UserError, match="no vote on a training prompt prefers"):
        dpo.run(project, config(project, ties="half"))


def test_without_votes_it_says_what_to_do(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    project = Project.create(tmp_path / "empty", base=str(tiny_models["llama"]))
    with pytest.raises(UserError, match="no votes to learn from: rank some with `palate label`"):
        dpo.run(project, config(project))
    assert project.runs() == []


def test_only_held_out_votes_are_refused(ranked_project: Make) -> None:
    project = ranked_project(prompts=4, held_out=4)
    with pytest.raises(UserError, match="no vote on a training prompt"):
        dpo.run(project, config(project))
    assert [run.status for run in project.runs()] == ["failed"]


def test_ctrl_c_leaves_a_stopped_run(ranked_project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    project = ranked_project(prompts=8, held_out=2)

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dpo, "optimise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dpo.run(project, config(project))
    assert [run.status for run in project.runs()] == ["stopped"]


def test_too_high_a_rate_is_told_in_one_line(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    with pytest.raises(UserError, match="lower --learning-rate"):
        dpo.run(project, config(project, learning_rate=1e30))


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "ipo", "beta": 0.1},
        {"loss": "hinge"},
        {"loss": "robust", "label_smoothing": 0.2},
        {"ties": "half"},
        {"ties": "davidson"},
        {"ties": "rao_kupper", "strength": "margin"},
        {"strength": "scale", "sft_weight": 0.2},
        {"length_normalised": True, "beta": 2.0},
        {"objective": "plackett_luce"},
    ],
    ids=lambda changes: "-".join(f"{name}_{value}" for name, value in changes.items()),
)
def test_every_loss_learns_the_order(
    ranked_project: Make, changes: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    project = ranked_project()
    run = dpo.run(project, config(project, **changes))
    assert run.metrics["held_out"]["scores"]["value"] > 0.7
    steps = [json.loads(line) for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert "verdict: " in capsys.readouterr().out
    assert steps[0]["accuracy"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "plackett_luce", "loss": "hinge"}, "leave --loss and --ties as they are"),
        ({"objective": "plackett_luce", "ties": "half"}, "leave --loss and --ties as they are"),
        ({"objective": "plackett_luce", "label_smoothing": 0.1}, "no pairs to flip or to keep a margin"),
        ({"objective": "plackett_luce", "annotator_model": "flips"}, "no pairs to flip or to keep a margin"),
        ({"objective": "plackett_luce", "strength": "margin"}, "no pairs to flip or to keep a margin"),
        ({"loss": "robust"}, "is sigmoid while no vote is taken to be flipped"),
        ({"loss": "ipo", "ties": "davidson"}, "gives probabilities, which --loss ipo has none of"),
        ({"sft_weight": -1.0}, "--sft-weight takes 0 or more"),
        ({"label_smoothing": 0.5}, "--label-smoothing 0 to 0.5"),
    ],
)
def test_settings_that_contradict_each_other(
    ranked_project: Make, changes: dict[str, object], sentence: str
) -> None:
    project = ranked_project()
    with pytest.raises(UserError, match=sentence):
        dpo.run(project, config(project, **changes))
