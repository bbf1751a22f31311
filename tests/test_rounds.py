"""`palate loop`: rounds that run through with rules, wait for people, and go on where they were."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from palate import cli, loop
from palate.config import LoopConfig, Paused, SimulateConfig, UserError
from palate.labeling import simulate
from palate.project import Project
from palate.runs import CHECKPOINT, CHECKPOINTS

Make = Callable[..., Project]


@pytest.fixture
def project(ranked_project: Make) -> Project:
    return ranked_project(prompts=10, held_out=4)


def config(project: Project, **changes: object) -> LoopConfig:
    plain = {
        "rounds": 2,
        "prompts": 6,
        "k": 3,
        "taste": "terse",
        "eval": False,
        "device": "cpu",
        "dtype": "float32",
    }
    return LoopConfig(project.folder, **{**plain, **changes})  # type: ignore[arg-type]


def test_two_rounds_with_rules_each_from_the_last_policy(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    run = loop.run(project, config(project, eval=True))
    rounds = json.loads((Path(run.path) / "rounds.json").read_text())
    assert rounds == run.metrics["rounds"] and run.status == "done"
    assert [list(one) for one in rounds] == [["sample", "votes", "reward", "policy", "eval"]] * 2
    assert rounds[0]["policy"] == "dpo-1" and rounds[1]["policy"] == "dpo-2"
    assert project.run("dpo-1").artefact["base"] == project.base
    assert project.run("dpo-2").artefact["base"] == "dpo-1"
    assert project.run(rounds[1]["sample"]).config["models"] == ["dpo-1"]
    assert project.run("reward-2").config["base"] == project.base
    assert set(run.parents) == {run_id for one in rounds for run_id in one.values()}
    assert project.run(rounds[1]["eval"]).config["models"] == [project.base, "dpo-1", "dpo-2"]
    said = capsys.readouterr().out
    assert "[round 2 of 2] policy" in said and "the policy is dpo-2" in said


def test_it_waits_for_people_and_goes_on_where_it_was(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Paused, match="0 of 4 comparisons of sample-1 have a vote") as pause:
        loop.run(project, config(project, taste=None, votes=4, rounds=1))
    assert "palate loop --resume loop-1" in str(pause.value)
    assert (project.run("loop-1").status, project.run("sample-1").status) == ("stopped", "done")
    with pytest.raises(Paused):  # asked again: nothing is sampled again
        loop.run(project, LoopConfig(project.folder, resume="loop-1", device="cpu"))
    assert [run.id for run in project.runs() if run.stage == "sample"] == ["sample-1"]
    simulate.run(project, SimulateConfig(project.folder, "terse"))
    run = loop.run(project, LoopConfig(project.folder, resume="loop-1", device="cpu"))
    assert (run.status, run.error) == ("done", None)
    assert list(run.metrics["rounds"][0]) == ["sample", "reward", "policy"]
    assert "votes: 6 of 6 comparisons of sample-1" in capsys.readouterr().out


def test_waiting_is_no_error_at_the_terminal(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["loop", "--project", str(project.folder), "--prompts", "6", "--device", "cpu"])
    said = capsys.readouterr()
    assert (
        "rank them (palate label), then go on: palate loop --resume loop-1" in said.out
        and said.err.count("palate loop:") == 0
    )


def test_a_policy_that_was_interrupted_is_resumed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from palate.rl import dpo

    def killed(*_: object) -> None:
        for active in (project.folder / "runs").glob("dpo-*"):
            (active / CHECKPOINT).write_bytes(b"kept")
        raise KeyboardInterrupt

    monkeypatch.setattr(dpo, "check_step0", killed)  # as Ctrl-C in the middle of the stage
    with pytest.raises(KeyboardInterrupt):
        loop.run(project, config(project, rounds=1))
    monkeypatch.undo()
    assert project.run("dpo-1").status == project.run("loop-1").status == "stopped"
    assert loop._unfinished(project, "dpo", "sample-1") == "dpo-1"
    assert loop._unfinished(project, "reward", "sample-1") is None  # done
    assert loop._unfinished(project, "ppo", "sample-1") is None  # none
    (project.folder / "runs/dpo-1" / CHECKPOINT).unlink()  # it never was a checkpoint
    assert loop._unfinished(project, "dpo", "sample-1") is None
    trl = project.folder / "runs/dpo-1" / CHECKPOINTS / "step-3"  # as RLOO and GRPO have them
    trl.mkdir(parents=True)
    assert loop._unfinished(project, "dpo", "sample-1") == "dpo-1"
    trl.rmdir()
    run = loop.run(project, LoopConfig(project.folder, resume="loop-1", device="cpu"))
    assert run.metrics["policy"] == "dpo-2" and run.status == "done"


def test_comparisons_can_be_chosen(project: Project) -> None:
    run = loop.run(project, config(project, rounds=1, select="information", votes=5))
    votes = project.run(run.metrics["rounds"][0]["votes"])
    assert votes.config["select"] == "information" and votes.config["votes"] == 5
    assert [one.stage for one in project.runs()].count("features") == 1
    with pytest.raises(Paused, match="rank them \\(palate label --select information\\)"):
        loop.run(project, config(project, rounds=1, select="information", taste=None, seed=5))
    with pytest.raises(UserError, match="brought no new comparison to vote on: its answers were known"):
        loop.run(project, config(project, rounds=1, taste=None, seed=5))


@pytest.mark.parametrize("policy", ["ppo", "rloo", "grpo"])
def test_policies_that_learn_from_their_own_answers(project: Project, policy: str) -> None:
    # a step's own settings stand under its command's name
    with (project.folder / "palate.yaml").open("a") as file:
        file.write(f"{policy}:\n  steps: 3\n  batch_size: 8\n  max_new_tokens: 8\n  best_of: 2\n")
    project = Project.open(project.folder)
    run = loop.run(project, config(project, rounds=1, policy=policy))
    made = project.run(run.metrics["policy"])
    assert made.stage == policy and made.config["reward"] == [run.metrics["rounds"][0]["reward"]]
    assert (made.config["steps"], made.metrics["steps"]) == (3, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"rounds": 0}, "--rounds must be at least 1"), ({"k": 1}, "-k 1"), ({"votes": 0}, "--votes must be"), ({"resume": "loop-7"}, "there is no run")],
)  # fmt: skip
def test_what_cannot_be(project: Project, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        loop.run(project, config(project, **changes))
