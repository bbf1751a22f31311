"""One frozen base, four roles: policy, value and reward are LoRA adapters on it, the reference is the base without any.

Four models cost the memory of one. The value starts from the reward's adapter and head where a reward run stands on the
same base [16 of the details in ppo.py], else from an adapter that changes nothing and a head of zeros.
With full fine-tuning the policy and the value are models of their own, and the reference is a third.

    roles = Roles.adapters(loaded, rank=16, seed=0, reward=folder)
    with roles.training(POLICY) as forward: ...      # its weights get gradients, nobody else's
    look = roles.look(trees, temperature=1.0)        # all of them, no gradients

No role is switched between a forward and its backward. Not here: losses, sampling, the loop (ppo.py).
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from palate.config import UserError
from palate.models import Loaded, lora, quiet_libraries
from palate.reward.features import states
from palate.reward.model import RewardModel, read
from palate.sequences import EncodedTree
from palate.training import token_budget
from palate.tree import TreeForward

POLICY, VALUE, REWARD, REFERENCE = "default", "value", "reward", "__base__"
MERGE_BELOW = 100_000_000  # weights: up to here a second copy of them is cheaper than adapters at every token


@dataclass(frozen=True)
class Look:
    """What everybody says of the tokens of some trees: (N,) each, in order, and of their completions (C,)."""

    logprobs: Tensor  # of the policy
    reference: Tensor
    entropy: Tensor  # of the policy's distribution, nats
    values: Tensor
    rewards: Tensor | None  # (C,) normalised, of the reward run on this base, where there is one
    sds: Tensor | None  # (C,) their standard deviations, where they are known
    states: Tensor | None  # (C, D) what the reward's head reads


@dataclass
class Roles:
    """The models of PPO. `forwards` has one per role; with adapters all of them share one model."""

    loaded: Loaded  # the base; with adapters inside, its ordinary calls are the active role's
    forwards: dict[str, TreeForward]
    value_head: nn.Linear  # (D -> 1)
    shared: bool  # adapters on one base
    reward: RewardModel | None = None

    @classmethod
    def adapters(cls, loaded: Loaded, rank: int, seed: int, reward: Path | None) -> "Roles":
        """`reward`: the folder of a reward run whose base is this one."""
        forward = TreeForward.of(loaded.model, loaded.hardware)
        if not forward.plain_head:
            raise UserError(f"the logits of {loaded.ref} are not one matrix product, which PPO needs")
        model = lora(loaded.model, rank, 2 * rank, seed)
        head = nn.Linear(int(loaded.model.config.get_text_config().hidden_size), 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        judge = None
        with quiet_libraries(), torch.random.fork_rng():
            torch.manual_seed(seed + 1)
            if reward is not None and (reward / "adapter_config.json").exists():
                model.load_adapter(str(reward), REWARD)
                model.load_adapter(str(reward), VALUE)
            else:
                model.add_adapter(VALUE, model.peft_config[POLICY])
        model.eval()  # dropout is off in all of them, so the first ratio is 1 [18]
        wrapped = replace(forward, model=model)
        if reward is not None:
            judge = read(loaded, reward, wrapped)
            head.weight.data.copy_(judge.head.weight.detach() / judge.std)
            head.bias.data.fill_(-judge.mean / judge.std)
        roles = dict.fromkeys((POLICY, VALUE, REFERENCE), wrapped)
        found = cls(loaded, roles, head.to(loaded.hardware.device), True, judge)
        found.activate(POLICY)
        return found

    @classmethod
    def full(cls, loaded: Loaded) -> "Roles":
        """Every weight of policy and value trains: three models."""
        forward = TreeForward.of(loaded.model, loaded.hardware)
        if not forward.plain_head:
            raise UserError(f"the logits of {loaded.ref} are not one matrix product, which PPO needs")
        reference = copy.deepcopy(loaded.model).requires_grad_(False)
        value = copy.deepcopy(loaded.model)
        head = nn.Linear(int(loaded.model.config.get_text_config().hidden_size), 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        for model in (loaded.model, value):
            model.requires_grad_(True)
        value.get_output_embeddings().requires_grad_(value.config.get_text_config().tie_word_embeddings)
        models = {POLICY: loaded.model, REFERENCE: reference, VALUE: value}
        forwards = {role: replace(forward, model=model) for role, model in models.items()}
        return cls(loaded, forwards, head.to(loaded.hardware.device), False)

    @property
    def policy(self) -> Any:
        """The model that is trained to write."""
        return self.forwards[POLICY].model

    def activate(self, role: str) -> None:
        """Make the ordinary calls of the shared model this role's; no weight gets gradients."""
        if self.shared:
            self.policy.set_adapter(role, inference_mode=True)

    @contextmanager
    def reference(self) -> Iterator[Loaded]:
        """The start, to sample from."""
        if not self.shared:
            yield replace(self.loaded, model=self.forwards[REFERENCE].model)
            return
        with self.policy.disable_adapter():
            yield self.loaded

    def parameters(self, role: str) -> dict[str, nn.Parameter]:
        """By name, what training this role changes; the value's head with the value."""
        own = dict(self.forwards[role].model.named_parameters())
        if self.shared:
            own = {name: one for name, one in own.items() if f".{role}." in name or name.endswith(f".{role}")}
        if role == VALUE:
            own |= {f"value_head.{name}": one for name, one in self.value_head.named_parameters()}
        return own

    def frozen(self) -> dict[str, nn.Parameter]:
        """By name, what must be at the end as it was at the start: the reference's weights [20]."""
        named = self.forwards[REFERENCE].model.named_parameters()
        return {name: one for name, one in named if not (self.shared and ".lora_" in name)}

    @contextmanager
    def training(self, role: str) -> Iterator[TreeForward]:
        """The role's forward, its weights alone with gradients."""
        self.activate(role)
        own = list(self.parameters(role).values())
        for parameter in own:
            parameter.requires_grad_(True)
        try:
            yield self.forwards[role]
        finally:
            if self.shared:
                for parameter in own:
                    parameter.requires_grad_(False)

    @contextmanager
    def writing(self) -> Iterator[Loaded]:
        """The policy to sample from. A small one's adapter is merged meanwhile, and the weights are put back exactly."""
        self.activate(POLICY)
        if not self.shared or self.loaded.weights > MERGE_BELOW:
            yield self.loaded
            return
        layers = [module for module in self.policy.modules() if hasattr(module, "get_base_layer")]
        kept = [layer.get_base_layer().weight.detach().clone() for layer in layers]
        self.policy.merge_adapter([POLICY])
        try:
            yield self.loaded
        finally:
            self.policy.unmerge_adapter()
            with torch.no_grad():  # adding and taking away again would leave rounding errors in the reference
                for layer, weight in zip(layers, kept, strict=True):
                    layer.get_base_layer().weight.copy_(weight)

    @torch.no_grad()
    def frozen_states(self, trees: Sequence[EncodedTree]) -> NDArray[np.float32]:
        """(H,) mean over all completions of what the start's model reads in them (reward.features)."""
        budget = token_budget(self.loaded.model.config, self.loaded.hardware)
        with self.policy.disable_adapter() if self.shared else nullcontext():
            found = states(self.forwards[REFERENCE], trees, budget)
        self.activate(POLICY)
        mean: NDArray[np.float32] = np.concatenate(found).mean(axis=0)
        return mean

    def values(self, forward: TreeForward, trees: Sequence[EncodedTree]) -> Tensor:
        """(N,) float32 value of the text before each completion token, with gradients where they are recorded."""
        return self.value_of(forward.token_states(trees))

    def value_of(self, states: Tensor) -> Tensor:
        """(N,) from states (N, D)."""
        value: Tensor = self.value_head(states.float())[:, 0]
        return value

    @torch.no_grad()
    def look(self, trees: Sequence[EncodedTree], temperature: float) -> Look:
        """What all roles say of these trees.

        One pass for all where they share a base and a GPU computes, which likes few large calls. On a CPU a pass per
        role is 15 % faster: repeated rows save nothing there, and peft sorts them by adapter in every layer.
        """
        together = self.shared and self.loaded.hardware.device.type == "cuda"
        return self.look_together(trees, temperature) if together else self.look_apart(trees, temperature)

    @torch.no_grad()
    def look_together(self, trees: Sequence[EncodedTree], temperature: float) -> Look:
        """One pass over rows repeated per role; adapters on one base only."""
        forward = self.forwards[POLICY]
        packed, hidden = forward.roles(trees, [POLICY, REFERENCE, VALUE, *self._judges()])
        logprobs, entropy = forward.head_tokens(hidden[POLICY], packed, temperature)
        reference = forward.head_tokens(hidden[REFERENCE], packed, temperature)[0]
        values = self.value_of(hidden[VALUE][packed.predictors])
        judged = hidden[REWARD if self._judges() else REFERENCE][packed.last]
        return self._look(logprobs, reference, entropy, values, judged)

    @torch.no_grad()
    def look_apart(self, trees: Sequence[EncodedTree], temperature: float) -> Look:
        """One pass per role."""
        self.activate(POLICY)
        logprobs, entropy = self.forwards[POLICY].tokens(trees, temperature)
        self.activate(VALUE)
        values = self.values(self.forwards[VALUE], trees)
        judged = None
        if self._judges():
            self.activate(REWARD)
            judged = torch.cat(self.forwards[POLICY].last_hidden(trees))
        with self.policy.disable_adapter() if self.shared else nullcontext():
            reference = self.forwards[REFERENCE].tokens(trees, temperature)[0]
            if self.reward is not None and judged is None:
                judged = torch.cat(self.forwards[REFERENCE].last_hidden(trees))
        self.activate(POLICY)
        return self._look(logprobs, reference, entropy, values, judged)

    def _judges(self) -> list[str]:
        """The reward's adapter, where it has one on this base; a reward that is a head alone reads the base."""
        return [REWARD] if self.shared and REWARD in self.policy.peft_config else []

    def _look(
        self, logprobs: Tensor, reference: Tensor, entropy: Tensor, values: Tensor, judged: Tensor | None
    ) -> Look:
        if self.reward is None or judged is None:
            return Look(logprobs, reference, entropy, values, None, None, None)
        rewards, sds = self.reward.of_states(judged.float())
        return Look(logprobs, reference, entropy, values, rewards, sds, judged.float())
