"""What `palate reward` says to input that nothing can be learned from: one sentence, nothing trained in silence."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palate import importing
from palate.config import DpoConfig, ImportConfig, RewardConfig, SimulateConfig, UserError
from palate.data import features
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.hardware import probe
from palate.labeling import simulate
from palate.project import Project
from palate.reward import train
from palate.reward.model import load_reward
from palate.rl import dpo

Make = Callable[..., Project]
Texts = tuple[str, ...]


def config(project: Project, **changes: object) -> RewardConfig:
    return replace(RewardConfig(project.folder, device="cpu", dtype="float32"), **changes)  # type: ignore[arg-type]


def vote(
    project: Project, n: int, texts: Texts, verdict: str = "ranked", split: str = "train", by: str = "anna"
) -> None:
    """`n` prompts, each with these answers and one vote that prefers them in this order (`one`: names the first alone)."""
    person = Annotator(by)
    with project.store() as store:
        store.add_annotators([person])
        for i in range(n):
            prompt = Prompt(({"role": "user", "content": f"question {i} for {by} {split}"},), split=split)  # type: ignore[arg-type]
            made = [Completion(prompt.id, text, finish_reason="stop") for text in texts]
            comparison = Comparison(prompt.id, tuple(sorted(c.id for c in made)))
            assignment = Assignment(comparison.id, person.id, comparison.completion_ids)
            store.add_prompts([prompt])
            store.add_completions(made)
            store.add_comparisons([comparison])
            store.add_assignments([assignment])
            tiers = {
                "ranked": tuple((c.id,) for c in made),
                "tie": (tuple(c.id for c in made),),
                "one": ((made[0].id,),),
            }.get(verdict, ())
            said = "ranked" if verdict == "one" else verdict
            store.add_votes([Vote(assignment.id, said, tiers)])  # type: ignore[arg-type]


@pytest.fixture
def project(tiny_models: dict[str, Path], tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project", base=str(tiny_models["llama"]))


def runs(project: Project) -> list[tuple[str, str]]:
    return [(run.id, run.status) for run in project.runs()]


def test_without_votes_there_is_no_run(project: Project) -> None:
    with pytest.raises(UserError, match="there are no votes to learn from: rank some with `palate label`"):
        train.run(project, config(project))
    assert runs(project) == []


def test_only_ties(project: Project) -> None:
    vote(project, 12, ("a cat", "the mat"), "tie")
    with pytest.raises(UserError, match="no vote that counts says what is better: all are ties"):
        train.run(project, config(project))
    assert runs(project) == [("reward-1", "failed")]
    with pytest.raises(UserError, match="made no reward model"):
        load_reward(project, "reward-1", probe("cpu", "float32"))


def test_only_votes_that_all_is_bad(project: Project) -> None:
    vote(project, 12, ("a cat", "the mat"), "all_bad")
    with pytest.raises(UserError, match="there are no votes to learn from"):
        train.run(project, config(project))


def test_only_votes_on_held_out_prompts(project: Project) -> None:
    vote(project, 12, ("a cat", "the mat"), split="test")
    with pytest.raises(
        UserError, match=r"all votes are on held-out \(test\) prompts: rank completions of training"
    ):
        train.run(project, config(project))


def test_one_prompt_trains_and_says_that_nothing_is_judged(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(project, 1, ("a cat", "the mat", "a ball"))
    run = train.run(project, config(project))
    said = capsys.readouterr().out
    assert "1 rankings to learn from, 0 held out by nothing, as all votes are on one group of prompts" in said
    assert "accuracy against votes on held-out prompts: no decided pair" in said
    assert "there is one, so there is nobody to hold against them" in said
    assert run.metrics["votes"] is None
    assert "Not judged" in (Path(run.path) / "report.html").read_text()


def test_a_vote_for_an_answer_that_was_not_shown(project: Project) -> None:
    """The server and the importer refuse such a vote; a program that writes to the store itself may still bring one."""
    vote(project, 12, ("a cat", "the mat"))
    with project.store() as store:
        row = store.rows("SELECT c.id, c.completion_ids FROM comparison c ORDER BY c.id LIMIT 1")[0]
        ben = Annotator("ben")
        assignment = Assignment(row["id"], ben.id, tuple(row["completion_ids"]))
        store.add_annotators([ben])
        store.add_assignments([assignment])
        store.add_votes(
            [Vote(assignment.id, "ranked", ((row["completion_ids"][0],), ("unknown",)), id="0dd")]
        )
    said = r"1 votes rank an answer that their comparison does not hold, e\.g\. vote 0dd of annotator "
    with pytest.raises(UserError, match=said):
        train.run(project, config(project))
    with pytest.raises(UserError, match=said):
        dpo.run(project, DpoConfig(project.folder, device="cpu", dtype="float32"))
    assert all(status == "failed" for _, status in runs(project))


def test_votes_on_one_answer_teach_nothing(project: Project) -> None:
    vote(project, 12, ("a cat", "the mat"), "one")
    with pytest.raises(UserError, match="there are no votes to learn from"):
        train.run(project, config(project))
    assert runs(project) == []


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_features_that_are_no_numbers(project: Project, odd: float) -> None:
    """Votes are not chosen by them, and nobody votes meanwhile."""
    prompts = [Prompt(({"role": "user", "content": f"an idea: a cat no. {i}"},)) for i in range(12)]
    with project.store() as store:
        for prompt in prompts:
            made = [
                Completion(prompt.id, text, finish_reason="stop")
                for text in ("a cat", "a cat, 35mm lens, film grain")
            ]
            store.add_prompts([prompt])
            store.add_completions(made)
            store.add_comparisons([Comparison(prompt.id, tuple(sorted(one.id for one in made)))])
        ids = [row["id"] for row in store.rows("SELECT id FROM completion ORDER BY id")]
        matrix = np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32)
        matrix[5, 2] = odd
        features.add(store, "features-1", ids, matrix)
    asked = SimulateConfig(project.folder, taste="camera", annotators=1, select="information")
    with pytest.raises(
        UserError, match="1 features of these comparisons are not finite numbers: palate reward"
    ):
        simulate.run(project, asked)
    with project.store() as store:
        assert store.counts()["vote"] == 0


def test_one_annotator_is_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    vote(project, 20, ("a cat", "the mat"))
    run = train.run(project, config(project))
    said = capsys.readouterr().out
    assert "annotators are not told apart: there is one, so there is nobody to hold against them" in said
    assert not (Path(run.path) / "annotators.json").exists()


def test_hundred_thousand_characters(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    vote(project, 10, ("the mat " * 12_500, "a cat"))
    vote(project, 10, ("the mat", "a cat " * 16_700), by="ben")
    run = train.run(project, config(project, max_length=256))  # a quarter of it is enough for these prompts
    said = capsys.readouterr().out
    assert "of 20 rows, 0 prompts lost their start and 20 answers their end at 256 tokens" in said
    assert run.status == "done"
    scores = load_reward(project, run.id, probe("cpu", "float32")).score(
        [[{"role": "user", "content": "x"}]] * 2, ["the mat " * 12_500, "a cat"]
    )
    assert all(abs(score) < 1e3 for score in scores)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "sft-9"}, "sft-9"),
        ({"base": "./nowhere"}, "there is no folder ./nowhere"),
        ({"view": "nobody"}, "nobody"),
        ({"source": "other.jsonl"}, r"no votes on prompts from 'other.jsonl' \(sources here: "),
        ({"folds": 50}, "--folds 50 needs as many groups of prompts, there are 12"),
        ({"method": "freeze", "layers": 99}, "--layers takes 0 to 2"),
        ({"resume": "reward-7"}, "reward-7"),
    ],
)
def test_settings_that_name_nothing(project: Project, changes: dict[str, object], said: str) -> None:
    vote(project, 12, ("a cat", "the mat"))
    with pytest.raises(UserError, match=said):
        train.run(project, config(project, **changes))
    assert all(status == "failed" for _, status in runs(project))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "p", "completions": ["only one"], "ranking": [0]},
            "1 answers to compare; it takes 2 to 9",
        ),
        ({"prompt": "p", "completions": [], "ranking": []}, "needs a choice"),
        (
            {"prompt": "p", "completions": ["a", "b"], "ranking": [0, 7]},
            "ranking [0, 7] does not name the answers",
        ),
        (
            {"prompt": "p", "completions": ["a", "b"], "ranking": [0, float("nan")]},
            "ranking [0, nan] does not name the answers",
        ),
        ({"prompt": "p", "completions": ["a", "a"], "ranking": [0, 1]}, "answers 1 and 2 are the same text"),
        ({"prompt": "", "completions": ["a", "b"], "ranking": [0, 1]}, "the prompt is empty"),
    ],
)
def test_rankings_that_are_none_are_named_by_row(
    project: Project, tmp_path: Path, row: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rankings.jsonl"
    good = {"prompt": "q", "completions": ["x", "y"], "ranking": [1, 0]}
    file.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    importing.run(project, ImportConfig((file,), project=project.folder))
    text = capsys.readouterr().out
    assert "1 rejected, e.g. line 2: " in text and said in text
    with project.store() as store:
        assert store.counts()["vote"] == 1
