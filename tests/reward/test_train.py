"""`palate reward` from votes to scores: it learns, reports beside the length rule, and survives a reload."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from palate.config import RewardConfig, UserError
from palate.data.records import Annotator, Assignment, Comparison, Completion, Prompt, Vote
from palate.doctor import fingerprint
from palate.freezing import trained_weights
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import annotators, train
from palate.reward.model import WEIGHTS, RewardModel, load_reward

Make = Callable[..., Project]
QUESTION = [{"role": "user", "content": "where is 77?"}]
ANSWERS = ["the mat 77", "the red ball 77", "a cat 77 sat down"]


def config(project: Project, **changes: object) -> RewardConfig:
    plain = RewardConfig(
        project.folder, epochs=6, learning_rate=1e-2, batch_size=6, device="cpu", dtype="float32"
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_learns_from_rankings(ranked_project: Make, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    project = ranked_project(name)
    run = train.run(project, config(project))
    assert run.artefact == {"kind": "reward", "path": "reward", "base": project.base}
    for key in ("votes", "majority"):
        assert run.metrics[key]["scores"]["value"] > 0.9
        assert run.metrics[key]["pairs"] == 6 * 5
    assert run.metrics["votes"]["longer"]["value"] == 0
    assert run.metrics["reload_error"] < 1e-4
    assert (run.metrics["rankings"], run.metrics["held_out_rankings"]) == (18, 6)
    said = capsys.readouterr().out
    assert "the longer one wins" in said and "next: palate dpo" in said
    report = (Path(run.path) / "report.md").read_text()
    assert "| votes on held-out prompts |" in report and "saving and loading" in report

    reward = load_reward(project, run.id, probe("cpu", "float32"))
    scores = reward.score([QUESTION] * 3, ANSWERS)
    assert scores[0] > scores[1] > scores[2]


def test_scores_do_not_depend_on_company_or_arithmetic(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    run = train.run(project, config(project, epochs=1, dtype="bfloat16"))
    reward = load_reward(project, run.id, probe("cpu", "bfloat16"))
    other = [{"role": "user", "content": "a much longer question, where nobody knows what is asked at all?"}]
    together = reward.score([QUESTION, other, QUESTION], [ANSWERS[0], "the " * 60, ANSWERS[1]])
    alone = [reward.score([QUESTION], [ANSWERS[0]])[0], reward.score([QUESTION], [ANSWERS[1]])[0]]
    assert [together[0], together[2]] == pytest.approx(alone, abs=1e-3)
    cut = reward.score([QUESTION], [ANSWERS[0]], ["length"])  # no stop token: another place is read
    assert cut != pytest.approx([alone[0]], abs=1e-6)


def test_rewards_have_mean_0_and_spread_1_over_the_training_completions(ranked_project: Make) -> None:
    project = ranked_project()
    run = train.run(project, config(project, epochs=1))
    reward = load_reward(project, run.id, probe("cpu", "float32"))
    with project.store() as store:
        rows = store.rows(
            "SELECT q.messages, c.text FROM completion c JOIN prompt q ON q.id = c.prompt_id WHERE q.split = 'train'"
        )
    scores = reward.score([json.loads(row["messages"]) for row in rows], [row["text"] for row in rows])
    mean = sum(scores) / len(scores)
    assert mean == pytest.approx(0, abs=1e-3)
    assert (sum((s - mean) ** 2 for s in scores) / len(scores)) ** 0.5 == pytest.approx(1, abs=1e-3)


def test_the_head_alone(ranked_project: Make) -> None:
    project = ranked_project(prompts=8, held_out=2)
    run = train.run(project, config(project, method="freeze", learning_rate=0.1, epochs=20))
    assert not (Path(run.path) / "reward/adapter_config.json").exists()
    assert run.metrics["loss"] < 0.69
    assert len(load_reward(project, run.id, probe("cpu", "float32")).score([QUESTION], ["a cat"])) == 1


def test_folds_judge_every_ranking_by_a_model_that_never_saw_its_group(ranked_project: Make) -> None:
    project = ranked_project(prompts=12, held_out=0)
    run = train.run(project, config(project, folds=3, epochs=4))
    assert run.metrics["cross_validated"]["pairs"] == 12 * 5
    assert run.metrics["cross_validated"]["scores"]["value"] > 0.8
    assert run.metrics["held_out_by"].startswith("hash")
    with pytest.raises(UserError, match="--folds 30 needs as many groups"):
        train.run(project, config(project, folds=30))


def test_whole_groups_are_held_out() -> None:
    rows = [{"split": "train", "group": f"g{i % 5}", "pairs": [{}]} for i in range(40)]
    inside, outside, why = train.split(rows)
    assert sorted(inside + outside) == list(range(40))
    assert {rows[i]["group"] for i in inside}.isdisjoint({rows[i]["group"] for i in outside})
    assert why.startswith("hash")
    assert train.split([{"split": "train", "group": "only", "pairs": [{}]}]) == (
        [0],
        [],
        "nothing, as all votes are on one group of prompts",
    )
    with pytest.raises(UserError, match="held-out"):
        train.split([{"split": "test", "group": "g", "pairs": [{}]}])


def test_a_run_that_made_no_reward_is_refused(ranked_project: Make) -> None:
    project = ranked_project(prompts=4, held_out=4)
    with pytest.raises(UserError, match="all votes are on held-out"):
        train.run(project, config(project))
    with pytest.raises(UserError, match="reward-1 made no reward model"):
        load_reward(project, "reward-1", probe("cpu", "float32"))


def crowd_of(project: Project) -> Project:
    """Two more annotators on every comparison: one of the same opinion as the rule, one who says the reverse."""
    with project.store() as store:
        people = [Annotator("same"), Annotator("reverse")]
        store.add_annotators(people)
        for row in store.rows("SELECT comparison_id, completion_ids, ranking FROM current_vote"):
            for person, tiers in zip(people, (row["ranking"], row["ranking"][::-1]), strict=True):
                assignment = Assignment(row["comparison_id"], person.id, tuple(row["completion_ids"]))
                store.add_assignments([assignment])
                store.add_votes([Vote(assignment.id, "ranked", tuple(tuple(tier) for tier in tiers))])
    return project


def test_annotators_are_told_apart_and_dpo_can_read_what_was_found(
    ranked_project: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    project = crowd_of(ranked_project())
    run = train.run(project, config(project))
    said = capsys.readouterr().out
    assert "reverse: " in said and "below chance: their votes are left out" in said
    found = annotators.load(Path(run.path)).people
    eta = {row["name"]: found[row["id"]].eta for row in rows_of(project, "SELECT id, name FROM annotator")}
    assert eta["reverse"] < 0.5 and min(eta["same"], eta["rule"]) > 0.8
    assert run.metrics["annotators"]["votes"] == 3 * 18 * 5
    reward = load_reward(project, run.id, probe("cpu", "float32"))
    scores = reward.score([QUESTION] * 3, ANSWERS)
    assert scores[0] > scores[1] > scores[2]
    assert "reverse" not in (Path(run.path) / "run.json").read_text()  # ids, no names

    off = train.run(project, config(project, annotator_model="off", epochs=1))
    assert not (Path(off.path) / annotators.FILE).exists() and "annotators" not in off.metrics


def test_one_annotator_is_not_told_apart(ranked_project: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = ranked_project(prompts=8, held_out=2)
    run = train.run(project, config(project, epochs=1))
    assert "annotators are not told apart: there is one" in capsys.readouterr().out
    assert "annotators" not in run.metrics


def rows_of(project: Project, sql: str) -> list[dict[str, object]]:
    with project.store() as store:
        return store.rows(sql)


@pytest.mark.parametrize(
    ("method", "changes"), [("full", {}), ("freeze", {"layers": 1}), ("lora", {"ties": "davidson"}),
                            ("lora", {"ties": "rao_kupper", "strength": "margin"}), ("lora", {"ties": "drop"})],
)  # fmt: skip
def test_methods_and_losses_learn_and_survive_a_reload(
    ranked_project: Make, method: str, changes: dict[str, object]
) -> None:
    project = ranked_project()
    run = train.run(project, config(project, method=method, **changes))
    assert run.metrics["votes"]["scores"]["value"] > 0.9
    assert run.metrics["reload_error"] < 1e-4
    folder = Path(run.path) / "reward"
    kept = {path.name for path in folder.iterdir()}
    assert ("adapter_config.json" in kept) == (method == "lora") and (WEIGHTS in kept) == (method != "lora")
    about = json.loads((folder / "reward.json").read_text())
    assert ("tie" in about) == (changes.get("ties") in ("davidson", "rao_kupper"))
    reward = load_reward(project, run.id, probe("cpu", "float32"))
    scores = reward.score([QUESTION] * 3, ANSWERS)
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_what_a_method_trains(tiny_models: dict[str, Path], name: str) -> None:
    loaded = load(None, str(tiny_models[name]), probe("cpu", "float32"))
    before = fingerprint(loaded.model)
    decoder = dict(loaded.model.get_decoder().named_parameters())
    assert len(trained_weights(loaded.model, None)) == len(decoder)
    assert trained_weights(loaded.model, 0) == {}
    last = trained_weights(loaded.model, 1)
    assert 0 < len(last) < len(decoder) and not any("embed" in one or "wte" in one for one in last)
    assert any("norm" in one or "ln_f" in one for one in last)
    with pytest.raises(UserError, match="--layers takes 0 to 2, the layers of this model; got 3"):
        trained_weights(loaded.model, 3)

    model = RewardModel.new(loaded, "full", 64, seed=0)
    for parameter in model.modules["decoder"].parameters():
        parameter.data += parameter.requires_grad
    model.detach()
    loaded.model.requires_grad_(True)
    assert fingerprint(loaded.model) == before


@pytest.mark.parametrize("ties", ["half", "drop", "davidson"])
def test_only_ties_teach_nothing(ranked_project: Make, ties: str) -> None:
    project = ranked_project(prompts=6, held_out=1)
    with project.store() as store:
        for row in store.rows("SELECT assignment_id, completion_ids, id FROM current_vote"):
            store.add_votes(
                [Vote(row["assignment_id"], "tie", (tuple(row["completion_ids"]),), supersedes=row["id"])]
            )
    with pytest.raises(UserError, match="no vote that counts says what is better: all are ties"):
        train.run(project, config(project, ties=ties))


def test_votes_that_all_is_bad_pull_a_prompt_down(ranked_project: Make) -> None:
    project = ranked_project()
    rule = Annotator("rule", kind="rule")
    asked = [Prompt(({"role": "user", "content": f"sing of {i}!"},), split="train") for i in range(8)]
    with project.store() as store:
        store.add_prompts(asked)
        for i, prompt in enumerate(asked):
            made = [Completion(prompt.id, text, finish_reason="stop") for text in (f"la la {i}", f"no {i}")]
            comparison = Comparison(prompt.id, tuple(sorted(c.id for c in made)))
            assignment = Assignment(comparison.id, rule.id, comparison.completion_ids)
            store.add_completions(made)
            store.add_comparisons([comparison])
            store.add_assignments([assignment])
            store.add_votes([Vote(assignment.id, "all_bad", ())])
    found = []
    for how in ("below", "ignore"):
        run = train.run(project, config(project, all_bad=how))
        reward = load_reward(project, run.id, probe("cpu", "float32"))
        song = [{"role": "user", "content": "sing of 77!"}]
        found.append(reward.score([song, song, QUESTION], ["la la 77", "no 77", ANSWERS[0]]))
        assert run.metrics["rankings"] == (26 if how == "below" else 18)
        assert run.metrics["held_out_rankings"] == 6
    below, ignored = found
    assert max(below[:2]) < min(below[2], 0.0) and sum(below[:2]) < sum(ignored[:2])


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_classifier_goes_on_learning_from_its_own_head(
    ranked_project: Make, name: str, tmp_path: Path
) -> None:
    project = ranked_project(name, prompts=12, held_out=4)
    folder = tmp_path / "classifier"
    kind = transformers.AutoModelForSequenceClassification
    classifier = kind.from_pretrained(project.base, num_labels=1)
    classifier.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(project.base).save_pretrained(folder)
    run = train.run(project, config(project, base=str(folder), epochs=2, method="lora"))
    assert run.artefact["base"] == str(folder) and run.metrics["reload_error"] < 1e-4
    saved = load_file(Path(run.path) / "reward" / "adapter_model.safetensors")
    assert saved and not any("score" in name for name in saved)
    untouched = train.run(project, config(project, base=str(folder), epochs=1, learning_rate=1e-9))
    head = load_reward(project, untouched.id, probe("cpu", "float32")).head
    assert torch.allclose(head.weight, classifier.score.weight, atol=1e-6)
    with pytest.raises(UserError, match="it scores answers, it can't write them"):
        load(project, str(folder), probe("cpu", "float32"))


def test_a_reward_run_goes_on_learning(ranked_project: Make, capsys: pytest.CaptureFixture[str]) -> None:
    project = ranked_project(prompts=12, held_out=4)
    first = train.run(project, config(project))
    more = train.run(project, config(project, base=first.id, learning_rate=1e-9, epochs=1))
    assert more.parents[:1] == (first.id,)
    hardware = probe("cpu", "float32")
    old, new = (
        load_reward(project, run.id, hardware).score([QUESTION] * 3, ANSWERS) for run in (first, more)
    )
    assert new == pytest.approx(old, abs=0.02)  # nothing was learned; only the scale is taken anew
    whole = train.run(project, config(project, epochs=1, method="full"))
    with pytest.raises(UserError, match=r"reward-3 changed the weights of .* themselves \(full, freeze\)"):
        train.run(project, config(project, base=whole.id))


def test_what_reads_in_both_directions_is_refused(ranked_project: Make, tmp_path: Path) -> None:
    project = ranked_project(prompts=8, held_out=2)
    settings = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=400,
        num_labels=1,
    )
    transformers.BertForSequenceClassification(settings).save_pretrained(tmp_path / "encoder")
    transformers.AutoTokenizer.from_pretrained(project.base).save_pretrained(tmp_path / "encoder")
    with pytest.raises(UserError, match="reads in both directions"):
        train.run(project, config(project, base=str(tmp_path / "encoder")))
    settings.num_labels = 3
    transformers.BertForSequenceClassification(settings).save_pretrained(tmp_path / "encoder")
    with pytest.raises(UserError, match="has 3 labels; a reward model has one"):
        train.run(project, config(project, base=str(tmp_path / "encoder")))
