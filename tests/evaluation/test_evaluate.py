"""`palate eval` on a real small project: what it compares, what it writes, and that its numbers are right."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from palate.config import EvalConfig, UserError
from palate.evaluation import answers, evaluate, metrics
from palate.evaluation.summary import Judge
from palate.generation import sample
from palate.hardware import probe
from palate.models import load
from palate.project import Project

HARDWARE = probe("cpu", "float32")
TERSE = Judge("terse", "taste")


def small(project: Project) -> EvalConfig:
    return EvalConfig(project.folder, taste="terse", max_new_tokens=16, device="cpu", dtype="float32")


def test_default_plan_is_base_sft_dpo(loop: Project) -> None:
    found = evaluate.plan(loop, small(loop))
    assert found == evaluate.Plan(
        ("builtin", "sft-1", "dpo-1"), "sft-1", (Judge("reward-1", "reward"), TERSE)
    )


def test_named_models_include_the_baseline(loop: Project) -> None:
    found = evaluate.plan(loop, replace(small(loop), models=("dpo-1",), baseline="sft-1"))
    assert (found.models, found.baseline) == (("sft-1", "dpo-1"), "sft-1")
    found = evaluate.plan(loop, replace(small(loop), models=("dpo-1", "sft-1")))
    assert (found.models, found.baseline) == (("dpo-1", "sft-1"), "sft-1")
    found = evaluate.plan(loop, replace(small(loop), models=("builtin", "dpo-1")))
    assert (found.models, found.baseline) == (("builtin", "dpo-1"), "builtin")


def test_what_it_refuses(loop: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--taste sweet is unknown; there are: vivid"):
        evaluate.plan(loop, replace(small(loop), taste="sweet"))
    with pytest.raises(UserError, match="sft-1 is a sft run and holds no reward"):
        evaluate.plan(loop, replace(small(loop), reward="sft-1"))
    with pytest.raises(
        UserError, match="no held-out prompts have the source 'other'; the sources are: ideas"
    ):
        evaluate.held_out(loop, replace(small(loop), source="other"))
    with pytest.raises(UserError, match="must be at least 1"):
        evaluate.run(loop, replace(small(loop), samples=0))
    empty = Project.create(tmp_path / "empty")
    with pytest.raises(UserError, match="there is no finished SFT run"):
        evaluate.plan(empty, EvalConfig(empty.folder))
    with pytest.raises(UserError, match="nothing can judge the answers"):
        evaluate.plan(empty, EvalConfig(empty.folder, models=("builtin",)))
    with pytest.raises(UserError, match="there are no held-out prompts"):
        evaluate.held_out(empty, EvalConfig(empty.folder))


def test_a_new_sft_run_names_the_dpo_it_leaves_behind(loop: Project, tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    for stage, base in (("sft", "builtin"), ("dpo", "sft-1"), ("sft", "builtin")):
        with project.start(stage, {}) as run:
            run.update(artefact={"kind": "adapter", "path": "adapter", "base": base})
    found = evaluate.plan(project, EvalConfig(project.folder, taste="terse"))
    assert (found.models, found.baseline) == (("builtin", "sft-2"), "builtin")
    assert found.notes == (
        "no DPO run was made from sft-2; dpo-1 was made from sft-1: --models builtin sft-1 dpo-1",
    )


@pytest.mark.slow
def test_the_whole_evaluation(loop: Project, capsys: pytest.CaptureFixture[str]) -> None:
    run = evaluate.run(loop, small(loop))
    folder = Path(run.path)
    printed = capsys.readouterr().out
    assert "8 held-out prompts, 2 answers each" in printed
    assert str(folder / "report.html") in printed

    summary = json.loads((folder / "summary.json").read_text())
    assert (run.parents, run.status) == (("sft-1", "dpo-1", "reward-1"), "done")
    assert run.metrics["verdict"] == "too few prompts"  # eight decide nothing, and it says so
    assert (summary["prompts"], summary["samples"], summary["baseline"]) == (8, 2, "sft-1")
    assert summary["seen_in_training"] == {"dpo-1": 0, "reward-1": 0, "sft-1": 0}
    assert summary["models"][2]["kl"]["value"] != 0
    assert summary["settings"]["max_new_tokens"] == 16

    rows = pq.read_table(folder / "data/samples.parquet").to_pylist()
    assert len(rows) == 3 * 8 * 2
    from palate.data.taste import TASTES

    for row in rows:  # the frozen scores are the judges' own
        asked = json.loads(row["messages"])[-1]["content"]
        assert row["score_terse"] == TASTES["terse"].score(asked, row["text"])
    means = {
        name: np.mean([row["score_reward-1"] for row in rows if row["model"] == name])
        for name in ("builtin", "sft-1", "dpo-1")
    }
    for model in summary["models"]:
        assert model["scores"]["reward-1"]["value"] == pytest.approx(means[model["name"]])

    again = evaluate.run(loop, small(loop))
    assert again.files == run.files  # the same seed: the same answers, scores and log-probabilities


def test_training_on_a_held_out_prompt_is_noticed(loop: Project) -> None:
    runs = {run.id: run for run in loop.runs()}
    trained_on = set(pq.read_table(Path(runs["dpo-1"].path) / "data/train.parquet")["prompt_id"].to_pylist())
    found = evaluate.seen_in_training(runs, ["dpo-1", "reward-1"], trained_on)
    assert found == {"dpo-1": len(trained_on), "reward-1": len(trained_on), "sft-1": 0}


@torch.no_grad()
def test_log_probabilities_are_the_models_own(loop: Project) -> None:
    loaded = load(loop, "sft-1", HARDWARE)
    prompts = evaluate.held_out(loop, small(loop)).messages[:3]
    drawn = sample(loaded, prompts, 2, max_new_tokens=12, seed=1)
    found = answers.log_probabilities(loaded, prompts, drawn, 12)
    for p, prompt in enumerate(prompts):
        for s, one in enumerate(drawn[p]):
            start = loaded.encoder.prompt(prompt)
            logits = loaded.model(torch.tensor([start + one.token_ids])).logits[0].log_softmax(-1)
            steps = range(len(start) - 1, len(start) + len(one.token_ids) - 1)
            expected = sum(logits[i, t].item() for i, t in zip(steps, one.token_ids, strict=True))
            assert found[p, s] == pytest.approx(expected, abs=1e-3)


@torch.no_grad()
def test_kl_agrees_with_the_exact_sum_over_the_vocabulary(loop: Project) -> None:
    """For answers of one token KL is a sum that can be taken whole."""
    sft, base = (load(loop, ref, HARDWARE) for ref in ("sft-1", "builtin"))
    prompts = evaluate.held_out(loop, small(loop)).messages[:4]
    exact = []
    for prompt in prompts:
        ids = torch.tensor([sft.encoder.prompt(prompt)])
        mine, theirs = (one.model(ids).logits[0, -1].log_softmax(-1).double() for one in (sft, base))
        exact.append(float((mine.exp() * (mine - theirs)).sum()))
    drawn = sample(sft, prompts, 500, max_new_tokens=1, seed=0, batch_size=2000)
    under_sft, under_base = (answers.log_probabilities(one, prompts, drawn, 1) for one in (sft, base))
    spread = (under_sft - under_base).std() / np.sqrt(2000)
    found = metrics.kl(under_sft, under_base)
    assert found is not None
    assert abs(found.value - np.mean(exact)) < 4 * spread


def test_models_draw_their_own_random_numbers(loop: Project) -> None:
    """With shared ones a model compared with itself would tie on every pair of the same place."""
    prompts = evaluate.held_out(loop, small(loop)).messages[:4]
    config = small(loop)
    first, second = (answers.answer(loop, "sft-1", prompts, config, HARDWARE, stream) for stream in (0, 1))
    assert first.texts != second.texts
    assert first.texts == answers.answer(loop, "sft-1", prompts, config, HARDWARE, 0).texts
