"""`palate rloo` through TRL's own trainer; each silent defect of online trainers has a guard, and a test named after it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import RLOOTrainer

from palate import checkpoints
from palate.config import RewardConfig, RlooConfig, UserError
from palate.doctor import DoctorError
from palate.generation import sample
from palate.hardware import probe
from palate.models import Loaded, load, lora, quiet_libraries
from palate.project import Project
from palate.reward import train as reward_train
from palate.rl import guards, online_trl, rloo
from palate.rl.guards import Guard
from palate.rl.online_trl import OwnRollouts, Rollouts, padded_tokens, reference_is_start, with_policy
from palate.rl.prompted import default_learning_rate
from palate.rl.rewards import Part, Rewards
from palate.tree import TreeForward

Make = Callable[..., Project]
CPU = probe("cpu", "float32")


@pytest.fixture
def project(ranked_project: Make) -> Project:
    found = ranked_project()
    (found.folder / "taste.py").write_text(
        "def letters(prompts, texts):\n    return [float('e' in text) for text in texts]\n"
    )
    return found


def config(project: Project, **changes: object) -> RlooConfig:
    plain = RlooConfig(
        project.folder, reward=(f"{project.folder / 'taste.py'}:letters",), steps=4, batch_size=16, k=4,
        learning_rate=3e-2, max_new_tokens=6, missing_eos_penalty=0.0, best_of=4, device="cpu", dtype="float32",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_what_the_reward_says(writing_project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project = writing_project
    brief = (f"{project.folder / 'taste.py'}:brief",)
    run = rloo.run(
        project,
        config(
            project,
            reward=brief,
            steps=20,
            batch_size=32,
            passes=2,
            kl=0.0,
            learning_rate=2e-3,
            max_new_tokens=48,
        ),
    )
    folder = Path(run.path)
    assert run.status == "done" and run.artefact == {
        "kind": "adapter",
        "path": "adapter",
        "base": project.base,
    }
    assert run.metrics["episodes"] == 20 * 32 and run.metrics["kl"] > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(20))
    first, last = (sum(row["reward"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 0.4 and run.metrics["reward"] > run.metrics["reward_before"] + 0.4
    assert rows[0].keys() >= {
        "reward", "reward_sd", "score", "entropy", "length", "stop_rate", "distinct_2", "grad_norm", "clipped",
    }  # fmt: skip
    assert (folder / "data/prompts.parquet").exists() and not (folder / "checkpoints").exists()
    said = capsys.readouterr().out
    assert "rloo-1: RLOO on" in said and "held-out prompts: reward" in said and "next: palate eval" in said
    load(project, run.id, CPU)  # every other stage can start from it


@pytest.mark.slow
def test_a_stopped_run_ends_as_the_uninterrupted_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reward_of_votes(project)
    judges = ("reward-1", f"{project.folder / 'taste.py'}:letters")  # the first lets the guard watch
    some = config(project, steps=8, passes=2, reward=judges, keep_every=1)
    whole = rloo.run(project, some)
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    judged = Rollouts.judge
    asked = 0

    def stopping(self: Rollouts, prompts: Any) -> list[float]:
        nonlocal asked
        asked += 1
        if asked == 7:
            raise KeyboardInterrupt
        return judged(self, prompts)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Rollouts, "judge", stopping)
        rloo.run(project, some)
    stopped = project.run("rloo-2")
    assert stopped.status == "stopped" and list((Path(stopped.path) / "checkpoints").glob("step-*/guard.pt"))
    resumed = rloo.run(project, replace(config(project), resume="rloo-2"))
    assert _weights(project, whole.id).equal(_weights(project, resumed.id))
    first, second = (
        [{**json.loads(line)} for line in (Path(run.path) / "metrics.jsonl").read_text().splitlines()]
        for run in (whole, resumed)
    )
    timeless = [
        [{n: v for n, v in row.items() if "seconds" not in n} for row in rows] for rows in (first, second)
    ]
    assert timeless[0] == timeless[1]
    assert whole.metrics["gao_curve"] == resumed.metrics["gao_curve"] is not None
    assert not (Path(resumed.path) / "snapshots").exists()


def _reward_of_votes(project: Project) -> None:
    reward_train.run(
        project, RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False)
    )


def test_the_guard_ends_the_run_and_puts_the_best_policy_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the guard thinks is decided here; that it is obeyed is tested."""
    _reward_of_votes(project)
    seen: list[torch.Tensor] = []
    see = Guard.see

    def keeping(self: Guard, step: int, kl: float, reward: float, states: Any, weights: Any) -> None:
        see(self, step, kl, reward, states, weights)
        seen.append(torch.cat([one.detach().flatten() for one in weights.values()]).clone())

    monkeypatch.setattr(Guard, "see", keeping)
    monkeypatch.setattr(Guard, "stops", lambda self: len(self.path) == 4)
    monkeypatch.setattr(guards, "losses", lambda path: (2, [1.0] * len(path)))
    run = rloo.run(project, config(project, steps=9, reward=("reward-1",), keep_every=1))
    assert run.metrics["steps"] == 4 and run.metrics["kept_step"] == 2
    assert "kept the policy of step 2" in capsys.readouterr().out
    saved = load_file(Path(run.path) / "adapter/adapter_model.safetensors")
    assert sorted(torch.cat([one.flatten() for one in saved.values()]).tolist()) == sorted(seen[2].tolist())
    assert not torch.equal(seen[2], seen[3])


def _weights(project: Project, run: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in load(project, run, CPU).model.parameters()])


def test_what_cannot_be_is_one_line_and_leaves_no_run(project: Project) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"k": 1}, "-k at least 2"),
        ({"batch_size": 10}, "must be a multiple of -k 4"),
        ({"minibatches": 3}, "--minibatches 3 must divide --batch-size 16"),
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"clip": 1.0}, "--clip takes 0 to 1"),
        ({"steps": 0}, "must be at least 1"),
        ({"source": "nowhere"}, "there are no training prompts from source 'nowhere'"),
        ({"reward": ()}, "there is no reward run yet"),
    ]
    for changes, says in cases:
        with pytest.raises(UserError, match=says):
            rloo.run(project, config(project, **changes))
    assert project.runs() == []


# --- what goes wrong silently, by name


def prompts(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": "where is it? " * (1 + i % 3) + str(i)}] for i in range(count)]


class Kept:
    """A source of rewards that keeps what it was asked."""

    def score(self, prompts: Any, texts: Any, finish_reasons: Any = None) -> list[float]:
        self.texts, self.reasons = list(texts), list(finish_reasons)
        return [1.0] * len(texts)


def rollouts(loaded: Loaded, policy: Any, source: Any, **changes: Any) -> Rollouts:
    plain = Rollouts(
        with_policy(loaded, policy), Rewards((Part("x", 1.0),), (source,)), 2, 1.0, 5, 0, 5.0, 0.0
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_sampled_probabilities_are_the_trained_ones_whatever_the_padding(
    tiny_models: dict[str, Path], name: str
) -> None:
    loaded = load(None, str(tiny_models[name]), CPU)
    asked = prompts(3)  # of three lengths; gpt2 has absolute positions
    rows = sample(loaded, asked, k=2, max_new_tokens=5, seed=1)
    answers = [one for row in rows for one in row]
    starts = [loaded.encoder.prompt(asked[i // 2]) for i in range(6)]
    width, keep = max(map(len, starts)), max(len(one.token_ids) for one in answers)
    ids = torch.full((6, width + keep), loaded.encoder.pad_id)
    mask = torch.zeros_like(ids)
    for row, (start, one) in enumerate(zip(starts, answers, strict=True)):
        ids[row, width - len(start) : width] = torch.tensor(start)
        ids[row, width : width + len(one.token_ids)] = torch.tensor(one.token_ids)
        mask[row, width - len(start) : width + len(one.token_ids)] = 1
    shuffled = [4, 0, 3, 5, 1, 2]  # as TRL shuffles a rollout
    with torch.no_grad():
        found, entropies = padded_tokens(
            TreeForward.of(loaded.model, CPU), ids[shuffled], mask[shuffled], keep, 1.0
        )
    for place, row in enumerate(shuffled):
        drawn = torch.tensor(answers[row].logprobs)
        assert torch.allclose(found[place, : len(drawn)], drawn, atol=1e-4)
        assert not found[place, len(drawn) :].any() and (entropies[place, : len(drawn)] > 0).all()


def test_wrong_reference_with_trained_token_rows(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """TRL's copy of an adapter misses token rows; switched off, the adapter leaves the start."""
    from peft import LoraConfig, get_peft_model

    loaded = load(None, str(tiny_models["llama"]), CPU)
    ids = torch.tensor([[5, 6, 7, 8]])
    start = loaded.model(ids).logits.detach()
    settings = LoraConfig(target_modules="all-linear", trainable_token_indices=[5, 6], task_type="CAUSAL_LM")
    policy = get_peft_model(loaded.model, settings)
    with torch.no_grad():
        for name, one in policy.named_parameters():
            if one.requires_grad and "lora" not in name:
                one.add_(torch.randn_like(one))
    own = policy(ids).logits.detach()
    with quiet_libraries():
        _trainer(policy, loaded, tmp_path)
    policy.set_adapter("ref")
    assert not torch.allclose(policy(ids).logits, own, atol=1e-2), (
        "TRL copies token rows rightly now: drop the guard"
    )
    reference_is_start(policy)
    assert list(policy.peft_config) == ["default"] and any(p.requires_grad for p in policy.parameters())
    assert torch.allclose(policy(ids).logits, own, atol=1e-5)
    with policy.disable_adapter():
        assert torch.allclose(policy(ids).logits, start, atol=1e-5)


def _trainer(policy: Any, loaded: Loaded, folder: Path) -> Any:
    from datasets import Dataset
    from trl import RLOOConfig as TrlConfig

    arguments = TrlConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        per_device_train_batch_size=4, num_generations=2, max_steps=1,
    )  # fmt: skip
    return RLOOTrainer(
        model=policy, reward_funcs=online_trl._named, args=arguments, processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_list([{"prompt": one} for one in prompts(4)]),
    )  # fmt: skip


def test_model_left_in_bfloat16_after_a_rollout(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TRL's continuous batching leaves it."""
    wrote = Rollouts.write

    def casting(self: Rollouts, asked: Any, step: int) -> list[list[int]]:
        found = wrote(self, asked, step)
        self.loaded.model.to(torch.bfloat16)
        return found

    monkeypatch.setattr(Rollouts, "write", casting)
    with pytest.raises(DoctorError, match="number type changed"):
        rloo.run(project, config(project, steps=1))
    assert project.run("rloo-1").status == "failed"


def test_rescoring_of_cut_answers_with_an_end_they_never_had(tiny_models: dict[str, Path]) -> None:
    """The reward gets the text and that it was cut; TRL's chat template would add an end of turn."""
    loaded = load(None, str(tiny_models["qwen2"]), CPU)
    source = Kept()
    some = rollouts(loaded, loaded.model, source, missing_eos_penalty=0.25, max_new_tokens=2)
    written = some.write(prompts(8), 0)
    asked = [prompt for prompt in prompts(8) for _ in range(2)]
    scores = some.judge(asked)
    cut = [not ids or ids[-1] not in loaded.encoder.stop_ids for ids in written]
    assert any(cut)
    assert source.reasons == ["length" if one else "stop" for one in cut]
    same = [
        loaded.encoder.tree(prompts(1)[0], [text], [reason]).completions[0] == ids
        for ids, text, reason in zip(written, source.texts, source.reasons, strict=True)
    ]
    assert some.figures["reread"] == 1 - sum(same) / len(same)  # random weights write what no tokenizer would
    assert scores == [0.75 if one else 1.0 for one in cut]
    for ids, text, reason in zip(written, source.texts, source.reasons, strict=True):
        read = loaded.encoder.tree(prompts(1)[0], [text], [reason]).completions[0]
        assert (read[-1:] == [loaded.encoder.stop_ids[0]]) == (ids[-1] in loaded.encoder.stop_ids) or not text


def test_sampling_filter_that_scoring_does_not_have(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warmer(loaded: Loaded, asked: Any, k: int, temperature: float, *rest: Any) -> Any:
        return sample(loaded, asked, k, 0.5 * temperature, *rest)

    monkeypatch.setattr(online_trl, "sample", warmer)
    with pytest.raises(DoctorError, match="sampled from differ from those that are trained"):
        rloo.run(project, config(project, steps=1))


def test_policy_that_does_not_start_as_its_reference(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from palate.rl import online_run

    def moved(*arguments: Any) -> Any:
        policy = lora(*arguments)
        with torch.no_grad():
            for name, one in policy.named_parameters():
                if "lora_B" in name:
                    one.add_(0.3)
        return policy

    monkeypatch.setattr(online_run, "lora", moved)
    with pytest.raises(DoctorError, match="differs from its reference"):
        rloo.run(project, config(project, steps=1))


def test_defaults_that_are_wrong_on_a_cpu_and_dropout(project: Project) -> None:
    """bfloat16 and gradient checkpointing are TRL's defaults everywhere; dropout would make the first ratio not 1."""
    from palate.rl.online_run import common

    loaded = load(project, project.base, CPU)
    chosen = common(loaded, prompts(4), config(project))
    assert (chosen["bf16"], chosen["gradient_checkpointing"], chosen["use_cpu"]) == (False, False, True)
    assert (chosen["disable_dropout"], chosen["top_k"], chosen["top_p"], chosen["report_to"]) == (
        True,
        0,
        1.0,
        "none",
    )
    policy = lora(loaded.model, 4, 8, 0)
    assert policy.peft_config["default"].lora_dropout == 0.0


def test_rate_for_full_training_does_nothing_to_lora() -> None:
    """TRL's default is 1e-6."""
    assert default_learning_rate(4_000_000) == 1e-3 and default_learning_rate(10**9) == 1e-5


def test_answers_of_a_prompt_must_lie_together() -> None:
    trainer = OwnRollouts()
    trainer.rollouts = SimpleNamespace(k=2)  # type: ignore[assignment]
    one, other = prompts(2)
    with pytest.raises(AssertionError, match="lie together"):
        trainer._tokenize_prompts([one, other, one, other])
