"""Rollouts: what the policy writes, what everybody says of it, and what each token was worth.

    experience = collect(roles, rewards, prompts, config, kl_coefficient, seed)

Prompts are sampled K times each; the answers of a prompt stay one tree, so the prompt is computed once here too. Several
processes each sample and judge their share, and all of them get all of it. Numbers in brackets are those of the 21 details
in ppo.py. Not here: updates (ppo.py), where rewards come from (rewards.py).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from palate.config import PpoConfig
from palate.data.records import Message
from palate.generation import Sampled, sample
from palate.models import Loaded
from palate.parallel import team
from palate.rl.advantages import add_scores, gae, kl_estimates, kl_rewards, overlong_penalty, whiten
from palate.rl.guards import Figures
from palate.rl.ppo_losses import explained_variance
from palate.rl.rewards import OnBase, Rewards, check_scores
from palate.rl.roles import Roles
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree_packing import micro_batches, tree_tokens

GENERATED_AT_ONCE = 128  # completions


@dataclass(frozen=True)
class Experience:
    """Trees with their tokens' figures: each tensor of a tree is flat over its completions, in order."""

    trees: list[EncodedTree]
    texts: list[list[str]]
    logprobs: list[Tensor]  # when they were written
    values: list[Tensor]
    advantages: list[Tensor]
    returns: list[Tensor]
    figures: Figures
    below: list[Tensor]  # (tokens, D) of each tree, as in Look; empty: to be computed

    def tokens(self, tree: int) -> int:
        """Response tokens of a tree."""
        return len(self.logprobs[tree])


@dataclass(frozen=True)
class Seen:
    """One process's share: places among the prompts, and everything about them (plain tensors on the CPU)."""

    places: list[int]
    answers: list[list[Sampled]]
    looks: list[dict[str, Tensor | None]]  # per tree
    scores: list[list[list[float]]]  # per tree, per part, per completion
    seconds: Figures

    def rewards(self) -> list[list[float]]:
        """Per tree, the reward of each completion."""
        return [[sum(parts) for parts in zip(*tree, strict=True)] for tree in self.scores]

    def kl(self) -> float:
        """Nats per completion from the reference, k1."""
        gaps = [look["logprobs"] - look["reference"] for look in self.looks]  # type: ignore[operator]
        return float(torch.cat(gaps).sum()) / sum(map(len, self.answers))


def collect(
    roles: Roles,
    rewards: Rewards,
    prompts: Sequence[Sequence[Message]],
    config: PpoConfig,
    kl_coefficient: float,
    seed: int,
) -> Experience:
    """Sample, judge, and turn scores into advantages."""
    processes = team()
    places = list(processes.share(range(len(prompts))))
    alone = processes.size == 1  # states are too much to send around
    own = see(roles.writing, roles, rewards, prompts, places, config, config.k, seed, keep=alone)
    every = processes.gather(own)
    order = sorted((place, part, i) for part, seen in enumerate(every) for i, place in enumerate(seen.places))
    seen = [(every[part], i) for _, part, i in order]
    answers = [one.answers[i] for one, i in seen]
    looks = [one.looks[i] for one, i in seen]
    parts = [one.scores[i] for one, i in seen]
    trees = written(roles.loaded, prompts, answers)
    seconds = {name: max(one.seconds[name] for one in every) for name in own.seconds}
    return _experience(trees, answers, looks, parts, rewards, config, kl_coefficient, seconds)


def see(
    writing: Callable[[], AbstractContextManager[Loaded]],
    roles: Roles,
    rewards: Rewards,
    prompts: Sequence[Sequence[Message]],
    places: list[int],
    config: PpoConfig,
    k: int,
    seed: int,
    keep: bool = False,
) -> Seen:
    """Let the model that `writing` opens answer the prompts at `places` k times, and everybody judge that.

    `keep`: with what the value's training starts from (roles.look).
    """
    began = time.perf_counter()
    with writing() as writer:  # from its own distribution, or what is sampled is not what is scored [4]
        answers = sample(
            writer, prompts, k, config.temperature, 1.0, config.max_new_tokens, seed, GENERATED_AT_ONCE, None, places
        )  # fmt: skip
    asked = [prompts[place] for place in places]
    trees = written(roles.loaded, asked, answers)
    wrote = time.perf_counter()
    looks = _looks(roles, trees, config.temperature, keep)
    scores = _scores(rewards, asked, answers, looks)
    seconds = {"rollout_seconds": wrote - began, "scoring_seconds": time.perf_counter() - wrote}
    return Seen(places, answers, looks, scores, seconds)


def _looks(
    roles: Roles, trees: Sequence[EncodedTree], temperature: float, keep: bool
) -> list[dict[str, Tensor | None]]:
    """What all roles say, tree by tree, on the CPU."""
    found: list[dict[str, Tensor | None]] = [{}] * len(trees)
    for group in micro_batches(trees, token_budget(roles.loaded.model.config, roles.loaded.hardware)):
        some = [trees[i] for i in group]
        look = vars(roles.look(some, temperature, keep))
        tokens = [sum(map(len, tree.completions)) for tree in some]
        counts = [len(tree.completions) for tree in some]
        lengths = {"rewards": counts, "sds": counts, "below": [tree_tokens(tree) for tree in some]}
        for name, whole in look.items():
            parts: Sequence[Tensor | None] = [None] * len(some)
            if whole is not None:
                parts = torch.split(whole.cpu(), lengths.get(name, tokens))
            for index, part in zip(group, parts, strict=True):
                found[index] = {**found[index], name: part}
    return found


def _scores(
    rewards: Rewards,
    prompts: Sequence[Sequence[Message]],
    answers: Sequence[Sequence[Sampled]],
    looks: Sequence[dict[str, Tensor | None]],
) -> list[list[list[float]]]:
    """Per tree and part, what it adds to each completion; a run on the policy's base has been asked already."""
    flat = [one for row in answers for one in row]
    asked = [prompt for prompt, row in zip(prompts, answers, strict=True) for _ in row]
    texts, reasons = [one.text for one in flat], [one.finish_reason for one in flat]
    found: list[list[list[float]]] = [[] for _ in answers]
    for part, source in zip(rewards.parts, rewards.sources, strict=True):
        if isinstance(source, OnBase):
            scores = [x for look in looks for x in source.of(look["rewards"], look["sds"])]
        else:
            scores = source.score(asked, texts, reasons)
        check_scores(part.name, scores, len(flat))
        rest = iter(scores)
        for place, row in enumerate(answers):
            found[place].append([part.weight * next(rest) for _ in row])
    return found


def _experience(
    trees: list[EncodedTree],
    answers: Sequence[Sequence[Sampled]],
    looks: Sequence[dict[str, Tensor | None]],
    parts: Sequence[list[list[float]]],
    rewards: Rewards,
    config: PpoConfig,
    kl_coefficient: float,
    seconds: Figures,
) -> Experience:
    lengths = torch.tensor([len(one.token_ids) for row in answers for one in row])
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).float()
    old, reference, values, entropy = (
        _padded(looks, name, lengths) for name in ("logprobs", "reference", "values", "entropy")
    )
    by_part = torch.tensor([[x for tree in parts for x in tree[p]] for p in range(len(rewards.parts))])
    overlong = overlong_penalty(lengths, config.max_new_tokens, config.overlong_buffer)
    score, judged = scored(
        [one for row in answers for one in row], by_part.sum(0), config.reward_clip, config.missing_eos_penalty,
        config.overlong_penalty * overlong,
    )  # fmt: skip
    token_rewards = add_scores(kl_rewards(old, reference, kl_coefficient, mask), score, mask)
    if config.whiten_rewards:
        token_rewards = whiten(token_rewards, mask, shift_mean=False)
    advantages, returns = gae(token_rewards, values, mask, config.gamma, config.lam)
    k1, k3 = (estimate * mask for estimate in kl_estimates(old - reference))
    drawn = torch.tensor([x for row in answers for one in row for x in one.logprobs])
    tokens = float(mask.sum())
    figures = {
        **judged,
        "kl": float(k1.sum(1).mean()),
        "kl_k3_per_token": float(k3.sum() / tokens),
        "entropy": float((entropy * mask).sum() / tokens),
        "explained_variance": explained_variance(values[mask > 0], returns[mask > 0]),
        "sampler_gap": float(
            (drawn - old[mask > 0]).mean()
        ),  # nats per token between sampling and scoring [4, 5]
        "kl_coefficient": kl_coefficient,
        **{f"reward/{part.name}": float(x) for part, x in zip(rewards.parts, by_part.mean(1), strict=True)},
        **seconds,
    }
    sds = [look["sds"] for look in looks if look.get("sds") is not None]
    if sds:
        figures["reward_uncertainty"] = float(torch.cat(sds).mean())  # type: ignore[arg-type]
    per_tree = [sum(map(len, tree.completions)) for tree in trees]

    def split(padded: Tensor) -> list[Tensor]:
        return list(torch.split(padded[mask > 0], per_tree))

    return Experience(
        trees, [[one.text for one in row] for row in answers], split(old), split(values),
        split(whiten(advantages, mask)), split(returns), figures,
        [one for look in looks if (one := look["below"]) is not None],
    )  # fmt: skip


def written(
    loaded: Loaded, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[Sampled]]
) -> list[EncodedTree]:
    """One tree per prompt, of the very tokens that were sampled."""
    return [
        EncodedTree(loaded.encoder.prompt(prompt), [list(one.token_ids) for one in row], 0, 0)
        for prompt, row in zip(prompts, answers, strict=True)
    ]


def scored(
    answers: Sequence[Sampled],
    reward: Tensor,
    clip: float | None,
    missing_eos_penalty: float,
    added: Tensor | float = 0.0,
) -> tuple[Tensor, Figures]:
    """(what each answer is optimised for (C,), figures of the answers): its reward (C,), clipped, less the penalty where it
    did not end by itself [6], and what is `added` besides."""
    stopped = torch.tensor([one.finish_reason == "stop" for one in answers])
    score = reward if clip is None else reward.clamp(-clip, clip)
    score = score - missing_eos_penalty * (~stopped).float() + added
    return score, {
        "reward": float(reward.mean()),
        "reward_sd": float(reward.std(correction=0)),
        "score": float(score.mean()),
        "length": sum(len(one.token_ids) for one in answers) / len(answers),
        "stop_rate": float(stopped.float().mean()),
        "distinct_2": distinct_bigrams([one.token_ids for one in answers]),
    }


def distinct_bigrams(answers: Sequence[Sequence[int]]) -> float:
    """Different pairs of neighbouring tokens as a share of all (distinct-2, Li et al. 2016, https://arxiv.org/abs/1510.03055)."""
    pairs = [pair for ids in answers for pair in pairwise(ids)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def _padded(looks: Sequence[dict[str, Tensor | None]], name: str, lengths: Tensor) -> Tensor:
    """(B, T) of figures that are flat per tree."""
    flat = torch.cat([one for look in looks if (one := look[name]) is not None])
    return pad_sequence(list(torch.split(flat, lengths.tolist())), batch_first=True)
