"""Proximal policy optimisation from a reward (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), as the loop it is.

    rollout: the policy writes, everybody says what it thinks of it        rollouts.py, roles.py, rewards.py
    advantages: scores and the KL penalty become what each token was worth     advantages.py
    update: some passes of clipped policy and value steps                     here, ppo_losses.py

The 21 details that make it work for language models (Huang et al. 2024, "The N+ Implementation Details of RLHF with PPO",
https://arxiv.org/abs/2403.17031, and the code it describes), numbered in the comments of these files; each has a test:

 1  reward and value read prompt and answer together      12  adaptive KL coefficient (--kl-target)
 2  masks are explicit, padding is never an end token      13  advantages whitened under the mask, biased variance
 3  positions count from each text's first token           14  GAE over the answer, value 0 after its last token
 4  pure sampling: no top-k, top-p, repetition penalty     15  returns from advantages before whitening
 5  logits divided by the temperature everywhere           16  value starts from the reward; clipped, halved loss
 6  answers end at the first end token; a penalty if none  17  ratio clip; new minibatches each pass; KL early stop
 7  every process has its own samples                      18  dropout off everywhere: the first ratio is 1
 8  the reward is read at the last real token              19  Adam's epsilon 1e-5, rates fall to 0
 9  rewards normalised: mean 0, deviation 1                20  reference frozen; the same at the end as at the start
10  the reward: same tokenizer, from the same SFT model    21  KL (k1, k3), entropy, clip share, ratio, lengths logged
11  KL penalty on each token, the score on the last

Deviations, on purpose: minibatches are drawn by prompt, so that answers of one prompt share its computation [17]; a
completion's samples do not depend on the process that draws them, so two processes give the numbers of one [7]; losses are
means over a minibatch's tokens, not of sequences' means (Yu et al. 2025, https://arxiv.org/abs/2503.14476); the value has
parameters and a learning rate of its own, so its coefficient 0.1 is gone, it starts from the reward's adapter under a head of
zeros, and trains its upper layers alone, from what the reward's lower ones put out [16]; scores are those of the reward run's
standard deviations over its training completions, not of the start policy's samples [9].
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from tqdm import tqdm

from palate.checkpoints import Checkpoints, State
from palate.config import PpoConfig
from palate.data.records import Message
from palate.doctor import DoctorError, check_finite
from palate.models import Loaded
from palate.parallel import team
from palate.rl.advantages import adapted
from palate.rl.guards import Figures, Guard
from palate.rl.ppo_losses import policy_loss, value_loss
from palate.rl.prompted import drawn, step_seed
from palate.rl.rewards import Rewards
from palate.rl.roles import POLICY, VALUE, Roles
from palate.rl.rollouts import Experience, collect
from palate.training import CLIP, token_budget
from palate.tree_packing import micro_batches

EPSILON = 1e-5  # Adam's [19]
FIRST_RATIO = {torch.float32: 1e-4, torch.bfloat16: 1e-2}  # how far the first mean ratio may be from 1 [18]
SAMPLER_GAP = 0.02  # nats per token between what was sampled from and what is scored, at most [4, 5]
Optimizers = dict[str, torch.optim.Optimizer]  # by role
Trained = dict[str, dict[str, nn.Parameter]]  # by role and name


@dataclass
class Ppo:
    """Everything that a run of PPO trains with; `history` has a row of figures per step."""

    roles: Roles
    rewards: Rewards
    prompts: Sequence[Sequence[Message]]
    config: PpoConfig
    rates: dict[str, float]  # peak learning rates of policy and value
    guard: Guard
    history: list[Figures] = field(default_factory=list)

    def optimise(self, log: Callable[..., None], checkpoints: Checkpoints | None = None) -> list[Figures]:
        """All steps, or the rest of them after a checkpoint; the policy's weights are then the last or the chosen ones."""
        config, roles = self.config, self.roles
        trained = {role: roles.parameters(role) for role in (POLICY, VALUE)}
        optimizers: Optimizers = {
            role: torch.optim.Adam(own.values(), lr=self.rates[role], eps=EPSILON)
            for role, own in trained.items()
        }
        state, kl_coefficient = self._start(checkpoints, trained, optimizers)
        bar = tqdm(
            total=config.steps, desc="ppo", unit="step", initial=state.step, file=sys.stderr, leave=False,
            disable=None if team().first else True,
        )  # fmt: skip
        with disable_input_dtype_casting(roles.policy):  # autocast casts; peft would cast up and down again
            self._steps(state, kl_coefficient, trained, optimizers, bar, log, checkpoints)
        bar.close()
        return state.history

    def _steps(
        self,
        state: State,
        kl_coefficient: float,
        trained: Trained,
        optimizers: Optimizers,
        bar: Any,
        log: Callable[..., None],
        checkpoints: Checkpoints | None,
    ) -> None:
        """From where `state` is to the end."""
        config, roles = self.config, self.roles
        while state.step < config.steps and not state.ended:
            step = state.step
            prompts, seed = self._prompts_of(step), step_seed(config.seed, step)  # [7]
            experience = collect(roles, self.rewards, prompts, config, kl_coefficient, seed)
            kl = experience.figures["kl"]
            if step == 0:
                check_sampling(experience, roles.loaded)
            states = partial(roles.frozen_states, experience.trees)
            self.guard.see(step, kl, experience.figures["reward"], states, trained[POLICY])
            began = time.perf_counter()
            # linearly to 0, for a stopped run too: the rate is that of a run of `steps` [19]
            share = 1.0 - step / config.steps
            figures = self._update(experience, optimizers, share, step)
            figures |= experience.figures | {"update_seconds": time.perf_counter() - began}
            figures["learning_rate"] = share * self.rates[POLICY]
            if config.kl_target is not None:  # [12]
                kl_coefficient = adapted(
                    kl_coefficient, kl, config.kl_target, config.batch_size, config.kl_horizon
                )
            check_finite(figures["policy_loss"] + figures["value_loss"], step)
            state.step, state.ended = step + 1, self.guard.stops() or step + 1 == config.steps
            state.history.append(figures)
            self.history = state.history
            log(step, **figures)
            bar.update()
            bar.set_postfix(reward=f"{figures['reward']:+.2f}", kl=f"{figures['kl']:.1f}")
            if state.ended:
                self.guard.end(trained[POLICY])
            if checkpoints is not None and (checkpoints.due() or state.ended):
                self._keep(state, checkpoints, trained, optimizers, kl_coefficient)

    def _update(self, experience: Experience, optimizers: Optimizers, share: float, step: int) -> Figures:
        """Some passes over a rollout; figures are means over the tokens of all minibatches."""
        config = self.config
        sums: Figures = {}
        everything = range(len(experience.trees))
        size = -(-len(experience.trees) // config.minibatches)
        for role, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = share * self.rates[role]
        moved, ended = 0.0, False
        for epoch in range(config.ppo_epochs):
            order = random.Random(f"{config.seed}/{step}/{epoch}").sample(everything, len(everything))  # [17]
            for first in range(0, len(order), size):
                batch = order[first : first + size]
                found: Figures = {"tokens": float(sum(experience.tokens(tree) for tree in batch))}
                if step >= config.value_warmup:
                    found |= self._step(POLICY, experience, batch, optimizers)
                    moved = found["approx_kl"] / found["tokens"]
                    if step == config.value_warmup and epoch == first == 0:
                        check_first_ratio(found["ratio"] / found["tokens"], self.roles.loaded)
                    ended = config.target_kl is not None and moved > config.target_kl
                found |= self._step(VALUE, experience, batch, optimizers)
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
                if ended:
                    return _means(sums, step < config.value_warmup)
        return _means(sums, step < config.value_warmup)

    def _step(self, role: str, experience: Experience, batch: list[int], optimizers: Optimizers) -> Figures:
        """One optimiser step of one role: a token-mean loss, gradients clipped; returns sums over tokens."""
        processes = team()
        own = processes.share(batch)
        loaded = self.roles.loaded
        tokens = sum(experience.tokens(tree) for tree in batch)
        sums: Figures = {}
        parameters = list(self.roles.parameters(role).values())
        with self.roles.training(role) as forward:
            trees = [experience.trees[tree] for tree in own]
            for group in micro_batches(trees, token_budget(loaded.model.config, loaded.hardware)):
                some = [own[i] for i in group]
                losses = self._policy_sums if role == POLICY else self._value_sums
                loss, found = losses(forward, experience, some)
                torch.autograd.backward(loss / tokens)
                for name, value in found.items():
                    sums[name] = sums.get(name, 0.0) + value
            processes.add_up(parameters)
            sums = processes.sums(sums)
            norm = float(nn.utils.clip_grad_norm_(parameters, CLIP))
            optimizers[role].step()
            optimizers[role].zero_grad(set_to_none=True)
        return {**sums, f"{'policy' if role == POLICY else 'value'}_grad_norm": norm * tokens}

    def _policy_sums(
        self, forward: Any, experience: Experience, trees: Sequence[int]
    ) -> tuple[Tensor, Figures]:
        config, device = self.config, self.roles.loaded.hardware.device
        logprobs, _ = forward.tokens([experience.trees[tree] for tree in trees], config.temperature)
        old, advantages = (
            torch.cat([of[tree] for tree in trees]).to(device)
            for of in (experience.logprobs, experience.advantages)
        )
        high = config.clip if config.clip_high is None else config.clip_high
        found = policy_loss(logprobs, old, advantages, config.clip, high, config.dual_clip)
        loss, clipped, ratio, squared, moved = found
        values = torch.stack([loss.detach(), clipped, ratio, squared, moved]).tolist()
        names = ("policy_loss", "clip_share", "ratio", "ratio_squared", "approx_kl")
        return loss, dict(zip(names, values, strict=True))

    def _value_sums(
        self, forward: Any, experience: Experience, trees: Sequence[int]
    ) -> tuple[Tensor, Figures]:
        device = self.roles.loaded.hardware.device
        below = torch.cat([experience.below[tree] for tree in trees]).to(device) if experience.below else None
        values = self.roles.values(forward, [experience.trees[tree] for tree in trees], below)
        old, returns = (
            torch.cat([of[tree] for tree in trees]).to(device)
            for of in (experience.values, experience.returns)
        )
        loss, clipped = value_loss(values, old, returns, self.config.value_clip)
        return loss, {"value_loss": loss.item(), "value_clip_share": clipped.item()}

    def _prompts_of(self, step: int) -> list[Sequence[Message]]:
        """The prompts of a rollout: all of them in a new order, again and again."""
        wanted = self.config.batch_size // self.config.k
        start = step * wanted
        return [self.prompts[i] for i in drawn(len(self.prompts), self.config.seed, start, start + wanted)]

    def _start(
        self,
        checkpoints: Checkpoints | None,
        trained: Trained,
        optimizers: Optimizers,
    ) -> tuple[State, float]:
        """The last checkpoint, put in place: weights, optimisers, KL coefficient, what the guard has seen."""
        state: State | None = team().same(checkpoints.load() if checkpoints is not None else None)
        if state is None:
            return State(0, {}, {}), self.config.kl
        with torch.no_grad():
            for role, own in trained.items():
                for name, parameter in own.items():
                    parameter.copy_(state.weights[f"{role}/{name}"])
        for role, optimizer in optimizers.items():
            optimizer.load_state_dict(state.optimizer[role])
        self.guard.resume(state.extra["guard"])
        self.history = state.history
        return state, float(state.extra["kl_coefficient"])

    def _keep(
        self,
        state: State,
        checkpoints: Checkpoints,
        trained: Trained,
        optimizers: Optimizers,
        kl_coefficient: float,
    ) -> None:
        state.weights = {
            f"{role}/{name}": one.detach() for role, own in trained.items() for name, one in own.items()
        }
        state.optimizer = {role: optimizer.state_dict() for role, optimizer in optimizers.items()}
        state.extra = {"kl_coefficient": kl_coefficient, "guard": self.guard.record()}
        checkpoints.save(state)


def check_sampling(experience: Experience, loaded: Loaded) -> None:
    """What was sampled from is what is scored: no filter, the same temperature [4, 5]."""
    gap = experience.figures["sampler_gap"]
    if abs(gap) > SAMPLER_GAP:
        raise DoctorError(
            f"the probabilities that {loaded.ref} was sampled from differ from those that are scored by {gap:+.3f} nats a "
            "token: the KL penalty would mean nothing; try --dtype float32"
        )


def check_first_ratio(ratio: float, loaded: Loaded) -> None:
    """Before anything is trained, new and old probabilities are the same [18]."""
    tolerance = FIRST_RATIO.get(loaded.hardware.dtype, 1e-2)
    if not abs(ratio - 1.0) <= tolerance:
        raise DoctorError(
            f"the first ratio of new and old probabilities is {ratio:.5f} instead of 1: something is random, or adapters "
            "are mixed up"
        )


def _means(sums: Figures, warming_up: bool) -> Figures:
    """Per token; `policy_loss` is 0 while only the value learns."""
    tokens = sums.pop("tokens")
    found = {name: value / tokens for name, value in sums.items()}
    if warming_up:
        found["policy_loss"] = 0.0
    return found
