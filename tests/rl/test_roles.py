"""Four roles on one base: each says what it would say alone, and none changes another."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from palate.config import RewardConfig
from palate.doctor import weights_hash
from palate.generation import sample
from palate.hardware import probe
from palate.models import Loaded, load
from palate.project import Project
from palate.reward import train
from palate.reward.model import load_reward
from palate.rl.roles import POLICY, REFERENCE, VALUE, Roles
from palate.sequences import EncodedTree
from palate.tree import TreeForward

Make = Callable[..., Project]
CPU = probe("cpu", "float32")
TREES = [
    EncodedTree([5, 6, 7, 8], [[9, 10, 11], [12, 13]], 0, 0),
    EncodedTree([20, 21], [[22, 23, 24, 25]], 0, 0),
]


@pytest.fixture
def judged(ranked_project: Make) -> Project:
    project = ranked_project("qwen2")
    train.run(
        project,
        RewardConfig(project.folder, device="cpu", dtype="float32", learning_curve=False, learning_rate=1e-2),
    )
    return project


def roles_of(
    project: Project, reward: str | None = "reward-1", value_layers: float = 1.0
) -> tuple[Loaded, Roles]:
    loaded = load(project, project.base, CPU)
    folder = None if reward is None else Path(project.run(reward).path) / "reward"
    return loaded, Roles.adapters(loaded, 4, 0, folder, value_layers)


def shaken(roles: Roles) -> None:
    """Every adapter away from where it starts."""
    torch.manual_seed(3)
    with torch.no_grad():
        for role in (POLICY, VALUE):
            for parameter in roles.parameters(role).values():
                parameter.add_(0.05 * torch.randn_like(parameter))


def test_look_is_what_each_says_alone(judged: Project) -> None:
    plain = TreeForward.of(load(judged, judged.base, CPU).model, CPU)
    reward = load_reward(judged, "reward-1", CPU)
    _, roles = roles_of(judged)
    shaken(roles)
    for look in (roles.look_apart(TREES, 0.7), roles.look_together(TREES, 0.7)):
        with torch.no_grad():
            expected = plain.tokens(TREES, 0.7)
        torch.testing.assert_close(look.reference, expected[0], atol=1e-5, rtol=1e-5)
        rewards = torch.tensor([x for row in reward.score_trees(TREES) for x in row])
        torch.testing.assert_close(look.rewards, rewards, atol=1e-4, rtol=1e-4)
        assert look.sds is not None and look.sds.shape == rewards.shape
        assert (look.logprobs - look.reference).abs().max() > 1e-2
    apart, together = roles.look_apart(TREES, 1.0), roles.look_together(TREES, 1.0)
    for one, other in zip(vars(apart).values(), vars(together).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_detail_5_logits_are_divided_by_the_temperature(judged: Project) -> None:
    loaded, roles = roles_of(judged, None)
    ids = torch.tensor([[*TREES[1].prompt, *TREES[1].completions[0]]])
    with torch.no_grad():
        logits = loaded.model(ids).logits[0, 1:-1] / 0.5
    logprobs = logits.log_softmax(-1)
    expected = logprobs.gather(-1, ids[0, 2:, None])[:, 0]
    look = roles.look([TREES[1]], 0.5)
    torch.testing.assert_close(look.logprobs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(look.entropy, -(logprobs.exp() * logprobs).sum(-1), atol=1e-5, rtol=1e-5)


def test_detail_16_value_starts_from_what_the_reward_reads_and_from_zero(judged: Project) -> None:
    _, roles = roles_of(judged)
    assert roles.look(TREES, 1.0).values.abs().max() == 0
    judge = roles.reward
    assert judge is not None
    with torch.no_grad():
        roles.value_head.weight.copy_(judge.head.weight / judge.std)
        roles.value_head.bias.fill_(-judge.mean / judge.std)
    # a value stands before its token: that of a completion's second token is the reward of its first one alone
    rewards = load_reward(judged, "reward-1", CPU).score_trees([EncodedTree(TREES[1].prompt, [[22]], 0, 0)])
    assert float(roles.look(TREES, 1.0).values[-3]) == pytest.approx(rewards[0][0], abs=1e-4)
    _, fresh = roles_of(judged, None)
    assert fresh.look(TREES, 1.0).values.abs().max() == 0


def test_detail_20_the_reference_is_the_start_whatever_was_written_and_trained(judged: Project) -> None:
    loaded, roles = roles_of(judged)
    before, frozen = roles.look(TREES, 1.0).reference, weights_hash(roles.frozen().items())
    optimizer = torch.optim.Adam(roles.parameters(POLICY).values(), lr=0.1)
    for _ in range(3):
        with roles.writing() as policy:
            sample(policy, [[{"role": "user", "content": "where?"}]], 2, max_new_tokens=4)
        with roles.training(POLICY) as forward:
            forward.tokens(TREES)[0].sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    after = roles.look(TREES, 1.0)
    assert torch.equal(after.reference, before)
    assert weights_hash(roles.frozen().items()) == frozen
    assert (after.logprobs - before).abs().max() > 0.1
    assert not loaded.model.training


def test_training_a_role_moves_that_role_alone(judged: Project) -> None:
    _, roles = roles_of(judged)
    for role, other in ((POLICY, VALUE), (VALUE, POLICY)):
        hashes = {r: weights_hash(roles.parameters(r).items()) for r in (POLICY, VALUE)}
        rewards = roles.look(TREES, 1.0).rewards
        optimizer = torch.optim.Adam(roles.parameters(role).values(), lr=0.01)
        with roles.training(role) as forward:
            loss = forward.tokens(TREES)[0].sum() if role == POLICY else roles.values(forward, TREES).sum()
            loss.backward()
            assert all(p.grad is None for p in roles.parameters(other).values())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        assert weights_hash(roles.parameters(other).items()) == hashes[other]
        assert weights_hash(roles.parameters(role).items()) != hashes[role]
        torch.testing.assert_close(roles.look(TREES, 1.0).rewards, rewards)


@pytest.mark.parametrize("reward", ["reward-1", None])
def test_a_value_of_upper_layers_starts_from_the_reward_and_trains_from_what_was_kept(
    judged: Project, reward: str | None
) -> None:
    _, whole = roles_of(judged, reward)
    _, roles = roles_of(judged, reward, 0.5)
    assert roles.below == 1 and roles_of(judged, reward)[1].below == 0
    with torch.no_grad():
        for one in (whole, roles):  # a head of zeros would hide what the states are
            one.value_head.weight += 0.1
    torch.testing.assert_close(roles.look(TREES, 1.0).values, whole.look(TREES, 1.0).values)
    trained = roles.parameters(VALUE)
    assert set(trained) < set(whole.parameters(VALUE)) and "value_head.weight" in trained
    assert not any(".layers.0." in name for name in trained)
    shaken(roles)
    apart, together = roles.look_apart(TREES, 1.0, keep=True), roles.look_together(TREES, 1.0, keep=True)
    torch.testing.assert_close(apart.below, together.below)
    torch.testing.assert_close(apart.values, together.values, atol=1e-5, rtol=1e-5)
    assert apart.below is not None and len(apart.below) == 4 + 3 + 2 + 2 + 4
    assert roles.look(TREES, 1.0).below is None
    gradients = []
    for kept in (None, apart.below):
        with roles.training(VALUE) as forward:
            values = roles.values(forward, TREES, kept)
            torch.testing.assert_close(values.detach(), apart.values, atol=1e-5, rtol=1e-5)
            values.square().sum().backward()
            gradients.append([one.grad.clone() for one in trained.values() if one.grad is not None])
            for one in trained.values():
                one.grad = None
    assert len(gradients[0]) == len(trained)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_detail_4_samples_are_scored_with_the_probabilities_they_were_drawn_from(judged: Project) -> None:
    loaded, roles = roles_of(judged)
    shaken(roles)
    prompts = [[{"role": "user", "content": f"where is {i}?"}] for i in range(3)]
    with roles.writing() as policy:
        answers = sample(policy, prompts, 2, 0.8, max_new_tokens=12)
    trees = [
        EncodedTree(loaded.encoder.prompt(p), [a.token_ids for a in row], 0, 0)
        for p, row in zip(prompts, answers, strict=True)
    ]
    drawn = torch.tensor([x for row in answers for a in row for x in a.logprobs])
    torch.testing.assert_close(drawn, roles.look(trees, 0.8).logprobs, atol=1e-4, rtol=1e-4)
    with roles.reference() as start:
        assert start is loaded
        plain = sample(start, prompts, 2, 0.8, max_new_tokens=12)
    alone = sample(load(judged, judged.base, CPU), prompts, 2, 0.8, max_new_tokens=12)
    assert [[a.token_ids for a in row] for row in plain] == [[a.token_ids for a in row] for row in alone]


def test_full_fine_tuning_has_three_models(judged: Project) -> None:
    loaded = load(judged, judged.base, CPU)
    roles = Roles.full(loaded)
    before = roles.look(TREES, 1.0)
    torch.testing.assert_close(before.logprobs, before.reference)
    optimizer = torch.optim.Adam(roles.parameters(POLICY).values(), lr=1e-2)
    with roles.training(POLICY) as forward:
        forward.tokens(TREES)[0].sum().backward()
        optimizer.step()
    after = roles.look(TREES, 1.0)
    assert torch.equal(after.reference, before.reference) and torch.equal(after.values, before.values)
    assert (after.logprobs - before.logprobs).abs().max() > 1e-2
    assert set(roles.forwards) == {POLICY, VALUE, REFERENCE}
