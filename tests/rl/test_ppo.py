"""`palate ppo` learns what its reward says, as its 21 details demand; names carry their numbers."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palate.config import PpoConfig, RewardConfig, UserError
from palate.doctor import DoctorError
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.reward import train as reward_train
from palate.rl import ppo_train
from palate.rl.guards import Guard
from palate.rl.ppo import Ppo, check_first_ratio, check_sampling
from palate.rl.prompted import drawn, step_seed
from palate.rl.rewards import open_rewards, parse
from palate.rl.roles import POLICY, VALUE, Roles
from palate.rl.rollouts import collect
from palate.tree import TreeForward

Make = Callable[..., Project]
CPU = probe("cpu", "float32")
BETA = 0.3


@pytest.fixture
def project(ranked_project: Make) -> Project:
    found = ranked_project()
    (found.folder / "taste.py").write_text(
        "def letters(prompts, texts):\n    return [float('e' in text) for text in texts]\n"
        "def long(prompts, texts):\n    return [float(len(text) >= 3) for text in texts]\n"
        "def short(prompts, texts):\n    return [-len(text) / 10 for text in texts]\n"
    )
    return found


def config(project: Project, function: str = "letters", **changes: object) -> PpoConfig:
    plain = PpoConfig(
        project.folder, reward=(f"{project.folder / 'taste.py'}:{function}",), steps=4, batch_size=16, k=4,
        learning_rate=1e-2, value_learning_rate=1e-2, max_new_tokens=6, missing_eos_penalty=0.0, guard="off", best_of=4, device="cpu",
        dtype="float32", value_warmup=0,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def built(project: Project, some: PpoConfig) -> Ppo:
    """The parts of a run, without the run."""
    loaded = load(project, project.base, CPU)
    full = some.method == "full"
    roles = Roles.full(loaded) if full else Roles.adapters(loaded, 4, 0, None, some.value_layers)
    rewards = open_rewards(project, [parse(one) for one in some.reward], CPU)
    prompts = [[{"role": "user", "content": f"where is {i}?"}] for i in range(8)]
    rates = {POLICY: some.learning_rate or 0.0, VALUE: some.learning_rate or 0.0}
    return Ppo(roles, rewards, prompts, some, rates, Guard("off", 5, None))


def rollout(ppo: Ppo, coefficient: float = 0.0):  # type: ignore[no-untyped-def]
    return collect(ppo.roles, ppo.rewards, ppo.prompts[:4], ppo.config, coefficient, 7)


def test_a_bandit_with_a_known_optimum_is_solved(project: Project) -> None:
    # one token: the best policy is reference exp(reward / beta), its objective beta log E exp(reward / beta)
    some = config(
        project,
        "long",
        method="full",  # adapters leave the output head alone, and could not write every distribution
        steps=60,
        batch_size=128,
        target_kl=None,
        max_new_tokens=1,
        kl=BETA,
        learning_rate=1e-2,
        ppo_epochs=2,
        lora_rank=8,
    )
    ppo = built(project, some)
    ppo.prompts = ppo.prompts[:1]
    encoder = ppo.roles.loaded.encoder
    prompt = encoder.prompt(ppo.prompts[0])
    texts = [encoder.decode([i]) if i not in encoder.stop_ids else "" for i in range(400)]
    reward = torch.tensor([float(len(text) >= 3) for text in texts])

    def distribution() -> torch.Tensor:
        with torch.no_grad():
            return ppo.roles.loaded.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)

    with ppo.roles.reference():
        reference = distribution()
    optimum = BETA * float(torch.logsumexp(reference + reward / BETA, 0))
    ppo.optimise(lambda *_, **__: None)
    ppo.roles.activate(POLICY)
    policy = distribution()
    objective = float((policy.exp() * (reward - BETA * (policy - reference))).sum())
    start = float((reference.exp() * reward).sum())
    assert 0 < start < 0.5 * optimum
    assert (objective - start) / (optimum - start) > 0.95
    assert objective <= optimum + 1e-4


def test_learns_a_rule_and_leaves_a_policy_that_other_stages_load(
    writing_project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project = writing_project
    some = config(project, "brief", steps=20, batch_size=32, learning_rate=2e-3, max_new_tokens=48, kl=0.01)
    run = ppo_train.run(project, replace(some, guard="warn"))
    folder = Path(run.path)
    assert run.artefact == {"kind": "adapter", "path": "adapter", "base": project.base}
    assert run.metrics["reward"] > run.metrics["reward_before"] + 0.3
    assert run.metrics["kl"] > 0 and not (folder / "snapshots").exists()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(20))
    first, last = (sum(row["reward"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 0.3
    # details 18, 21: the first ratio, the first distance, everything worth watching
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert abs(rows[0]["sampler_gap"]) < 1e-4
    watched = {"entropy", "kl", "kl_k3_per_token", "clip_share", "ratio", "ratio_squared", "approx_kl", "length", "stop_rate",
               "distinct_2", "reward_sd", "explained_variance", "rollout_seconds", "scoring_seconds", "update_seconds"}  # fmt: skip
    assert watched <= set(rows[0])
    assert rows[-1]["explained_variance"] > rows[0]["explained_variance"]
    # detail 19: the rate falls linearly to 0
    assert [row["learning_rate"] for row in rows] == pytest.approx([2e-3 * (1 - i / 20) for i in range(20)])
    said = capsys.readouterr().out
    assert "ppo-1: PPO on" in said and "held-out prompts: reward" in said and "next: palate eval" in said
    assert "best of 4" in said or "choosing the best" in said
    base, tuned = load(project, project.base, CPU), load(project, run.id, CPU)
    ids = torch.tensor([base.encoder.prompt([{"role": "user", "content": "where?"}])])
    assert (base.model(ids).logits - tuned.model(ids).logits).abs().max() > 1e-2


def test_details_1_2_3_6_8_of_tokens_and_scores(project: Project) -> None:
    ppo = built(project, config(project, missing_eos_penalty=5.0, max_new_tokens=40))
    loaded = ppo.roles.loaded
    stop = loaded.encoder.stop_ids[0]
    # make the end token likely, so that answers of many lengths come
    with torch.no_grad():
        head = loaded.model.get_output_embeddings().weight
        head[stop] = head.mean(0) + 3.0 * head.std()
    experience = rollout(ppo)
    answers = [ids for tree in experience.trees for ids in tree.completions]
    assert len({len(ids) for ids in answers}) > 1
    for ids in answers:  # [6] nothing stands behind the first end token
        assert stop not in ids[:-1]
    # [1, 2, 3] what the trees say is what plain rows say, each from its first token, the end token included
    plain = TreeForward(ppo.roles.policy, CPU, "rows")
    with torch.no_grad():
        expected, _ = plain.tokens(experience.trees, 1.0)
    torch.testing.assert_close(torch.cat(experience.logprobs), expected, atol=1e-4, rtol=1e-4)
    assert sum(map(len, answers)) == len(expected)
    # [8] gamma = lambda = 1 and no value: a token's return is the score at the last one
    flat = torch.split(torch.cat(experience.returns), [len(ids) for ids in answers])
    texts = [text for row in experience.texts for text in row]
    zero = [float(value) for one in experience.values for value in one]
    assert max(map(abs, zero)) == 0
    for returns, text, ids in zip(flat, texts, answers, strict=True):
        score = float("e" in text) - (0.0 if ids[-1] == stop else 5.0)
        last = float(returns[-1])
        assert last == pytest.approx(score, abs=1e-5)


def test_detail_7_samples_differ_by_step_and_not_by_attempt() -> None:
    assert len({step_seed(0, step) for step in range(50)}) == 50
    assert step_seed(0, 3) == step_seed(0, 3) != step_seed(1, 3)
    assert sorted(drawn(5, 0, 0, 5)) == [0, 1, 2, 3, 4] == sorted(drawn(5, 0, 5, 10))
    assert [*drawn(5, 0, 0, 4), *drawn(5, 0, 4, 11)] == list(drawn(5, 0, 0, 11))


def test_detail_9_and_10_a_runs_rewards_are_normalised_and_of_the_same_tokens(
    ranked_project: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ranked_project()
    reward_train.run(
        project, RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False)
    )
    run = ppo_train.run(project, config(project, reward=(), guard="stop", steps=2, best_of=0))
    assert "no votes to hold the policy against" not in capsys.readouterr().out
    assert run.config["reward"] == ["reward-1"] and run.parents == ("reward-1",)
    row = json.loads((Path(run.path) / "metrics.jsonl").read_text().splitlines()[0])
    assert row["reward/reward-1"] == pytest.approx(row["reward"]) and row["reward_uncertainty"] > 0
    assert abs(row["reward"]) < 10  # standard deviations over the training completions
    other = project.run("reward-1")
    (Path(other.path) / "run.json").write_text(
        json.dumps({**json.loads((Path(other.path) / "run.json").read_text()), "template_hash": "another"})
    )
    with pytest.raises(DoctorError, match="chat template"):
        ppo_train.run(project, config(project, reward=()))


def test_detail_18_a_first_ratio_that_is_not_1_is_refused(project: Project) -> None:
    loaded = load(project, project.base, CPU)
    check_first_ratio(1.00005, loaded)
    with pytest.raises(DoctorError, match=r"1\.00100 instead of 1"):
        check_first_ratio(1.001, loaded)
    ppo = built(project, config(project))
    assert not any(module.training for module in ppo.roles.policy.modules())
    assert all(p.dtype == torch.float32 for p in ppo.roles.parameters(POLICY).values())


def test_details_4_and_5_what_is_sampled_from_is_what_is_scored(project: Project) -> None:
    ppo = built(project, config(project, temperature=0.7))
    experience = rollout(ppo)
    assert abs(experience.figures["sampler_gap"]) < 1e-5
    check_sampling(experience, ppo.roles.loaded)
    experience.figures["sampler_gap"] = -0.1  # as with a filter: the sampler was surer than the model
    with pytest.raises(DoctorError, match=r"differ from those that are scored by -0\.100 nats"):
        check_sampling(experience, ppo.roles.loaded)


def test_detail_12_coefficient_adapts_to_its_target(project: Project) -> None:
    ppo = built(project, config(project, kl=0.1, kl_target=0.001, kl_horizon=16, steps=6))
    found = [row["kl_coefficient"] for row in ppo.optimise(lambda *_, **__: None)]
    assert found[0] == 0.1 and found[1] == pytest.approx(0.08)  # no distance yet: a fifth less
    assert found[-1] > min(found)


def test_early_stop_on_kl_ends_a_rollouts_updates(project: Project) -> None:
    calm = built(project, config(project, learning_rate=0.05, ppo_epochs=6, target_kl=1e-4, steps=1))
    eager = built(project, config(project, learning_rate=0.05, ppo_epochs=6, target_kl=None, steps=1))
    moved = [math.fsum(r["approx_kl"] for r in ppo.optimise(lambda *_, **__: None)) for ppo in (calm, eager)]
    assert moved[0] < moved[1] / 2


def test_value_warm_up_leaves_the_policy_alone(project: Project) -> None:
    ppo = built(project, config(project, value_warmup=2, steps=2))
    before = {name: one.clone() for name, one in ppo.roles.parameters(POLICY).items()}
    head = ppo.roles.value_head.weight.clone()
    ppo.optimise(lambda *_, **__: None)
    assert all(torch.equal(before[name], one) for name, one in ppo.roles.parameters(POLICY).items())
    assert not torch.equal(head, ppo.roles.value_head.weight)


def test_a_value_that_trains_its_upper_layers_takes_the_same_steps_without_what_was_kept(
    project: Project,
) -> None:
    values = []
    for forget in (False, True):
        ppo = built(project, config(project, minibatches=2))
        experience = rollout(ppo)
        assert [one.shape[1] for one in experience.below] == [ppo.roles.value_head.in_features] * 4
        if forget:  # as several processes do
            experience.below.clear()
        ppo.roles.value_head.weight.data += 0.1
        optimizers: dict[str, torch.optim.Optimizer] = {
            role: torch.optim.Adam(ppo.roles.parameters(role).values(), lr=1e-2) for role in (POLICY, VALUE)
        }
        ppo._update(experience, optimizers, 1.0, 0)
        values.append({name: one.detach().clone() for name, one in ppo.roles.parameters(VALUE).items()})
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"value_layers": 0.0}, "--value-layers is a share, above 0 and up to 1, got 0.0"),
        ({"batch_size": 10, "k": 4}, "multiple of -k 4"),
        ({"minibatches": 9}, "--minibatches 9"),
        ({"value_warmup": 4}, "leaves none to the policy"),
        ({"temperature": 0.0}, "PPO learns from chance"),
        ({"kl": -1.0}, "--kl 0 or more"),
        ({"kl": 0.0, "kl_target": 6.0}, "--kl-target needs"),
        ({"source": "elsewhere"}, "no training prompts from source 'elsewhere'"),
        ({"reward": ("reward-9",)}, "reward-9"),
        ({"max_new_tokens": 600}, "no prompt leaves room"),
        ({"resume": "ppo-9"}, "there is no run 'ppo-9'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    project: Project, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        ppo_train.run(project, config(project, **changes))
    assert "\n" not in str(error.value)


def test_without_a_reward_it_says_what_to_do(project: Project) -> None:
    with pytest.raises(UserError, match="palate reward makes one"):
        ppo_train.run(project, config(project, reward=()))


def test_full_fine_tuning(project: Project) -> None:
    run = ppo_train.run(project, config(project, method="full", steps=2, learning_rate=1e-3))
    assert run.artefact["kind"] == "model"
    load(project, run.id, CPU)
