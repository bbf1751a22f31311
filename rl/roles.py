"""One frozen base, four roles: policy, value and reward are LoRA adapters on it, the reference is the base without any.

Four models cost the memory of one. The value starts from the reward's adapter where a reward run stands on the same base [16 of
the details in ppo.py], else from one that changes nothing, and from a head of zeros: what the reward says of half an answer
varies far more than what the answer comes to, so its head explains less than the mean does.
Of the value's adapter only the upper layers train, half of them by default: the others stay the reward's, and what they put out
is computed once a rollout, not in every pass over it.
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
from palate.reward.model import RewardModel, read
from palate.rl.belief import mean_states
from palate.sequences import EncodedTree
from palate.tree import TreeForward
from palate.tree_layers import by_token, caught, divided, upper

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
    below: Tensor | None = None  # (tokens, D) of all tokens: what the trained layers of the value start from


@dataclass
class Roles:
    """The models of PPO. `forwards` has one per role; with adapters all of them share one model."""

    loaded: Loaded  # the base; with adapters inside, its ordinary calls are the active role's
    forwards: dict[str, TreeForward]
    value_head: nn.Linear  # (D -> 1)
    shared: bool  # adapters on one base
    reward: RewardModel | None = None
    below: int = 0  # layers under those that the value trains

    @classmethod
    def adapters(
        cls, loaded: Loaded, rank: int, seed: int, reward: Path | None, value_layers: float = 1.0
    ) -> "Roles":
        """`reward`: the folder of a reward run whose base is this one; `value_layers`: the share that the value trains."""
        forward = _forward(loaded)
        model = lora(loaded.model, rank, 2 * rank, seed)
        head = _value_head(loaded)
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
        roles = dict.fromkeys((POLICY, VALUE, REFERENCE), wrapped)
        found = cls(loaded, roles, head, True, judge, divided(wrapped, value_layers))
        found.activate(POLICY)
        return found

    @classmethod
    def full(cls, loaded: Loaded) -> "Roles":
        """Every weight of policy and value trains: three models."""
        forward = _forward(loaded)
        reference = copy.deepcopy(loaded.model).requires_grad_(False)
        value = copy.deepcopy(loaded.model)
        head = _value_head(loaded)
        for model in (loaded.model, value):
            model.requires_grad_(True)
        value.get_output_embeddings().requires_grad_(value.config.get_text_config().tie_word_embeddings)
        models = {POLICY: loaded.model, REFERENCE: reference, VALUE: value}
        forwards = {role: replace(forward, model=model) for role, model in models.items()}
        return cls(loaded, forwards, head, False)

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
        if role == VALUE and self.below:
            layers = self.forwards[role].base.get_decoder().layers[: self.below]
            frozen = {id(one) for one in layers.parameters()}
            own = {name: one for name, one in own.items() if id(one) not in frozen}
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
        with self.reference():
            found = mean_states(self.loaded, self.forwards[REFERENCE], trees)
        self.activate(POLICY)
        return found

    def values(
        self, forward: TreeForward, trees: Sequence[EncodedTree], below: Tensor | None = None
    ) -> Tensor:
        """(N,) float32 value of the text before each completion token, with gradients where they are recorded.

        `below`: what a look at these trees has kept, so that only the layers that train are computed.
        """
        packed = forward.pack(trees)
        hidden = forward.decode(packed) if below is None else upper(forward, packed, below, self.below)
        return self.value_of(hidden[packed.predictors])

    def value_of(self, states: Tensor) -> Tensor:
        """(N,) from states (N, D)."""
        value: Tensor = self.value_head(states.float())[:, 0]
        return value

    @torch.no_grad()
    def look(self, trees: Sequence[EncodedTree], temperature: float, keep: bool = False) -> Look:
        """What all roles say of these trees; `keep`: and what the value's training starts from, where it trains upper layers.

        One pass for all where they share a base and a GPU computes, which likes few large calls. On a CPU a pass per
        role is 15 % faster: repeated rows save nothing there, and peft sorts them by adapter in every layer.
        """
        together = self.shared and self.loaded.hardware.device.type == "cuda"
        return (self.look_together if together else self.look_apart)(trees, temperature, keep)

    @torch.no_grad()
    def look_together(self, trees: Sequence[EncodedTree], temperature: float, keep: bool = False) -> Look:
        """One pass over rows repeated per role; adapters on one base only."""
        forward = self.forwards[POLICY]
        packed = forward.pack(trees)
        asked = [POLICY, REFERENCE, VALUE, *self._judges()]
        with caught(forward, self.below if keep else 0) as states:
            hidden = forward.roles(packed, asked)
        logprobs, entropy = forward.head_tokens(hidden[POLICY], packed, temperature)
        reference = forward.head_tokens(hidden[REFERENCE], packed, temperature)[0]
        values = self.value_of(hidden[VALUE][packed.predictors])
        judged = hidden[REWARD if self._judges() else REFERENCE][packed.last]
        below = [by_token(packed, one.chunk(len(asked))[asked.index(VALUE)]) for one in states]
        return self._look(logprobs, reference, entropy, values, judged, below)

    @torch.no_grad()
    def look_apart(self, trees: Sequence[EncodedTree], temperature: float, keep: bool = False) -> Look:
        """One pass per role; the value's lower layers are the reward's, or where it has no adapter here the reference's."""
        self.activate(POLICY)
        packed = self.forwards[POLICY].pack(trees)
        hidden = self.forwards[POLICY].decode(packed)
        logprobs, entropy = self.forwards[POLICY].head_tokens(hidden, packed, temperature)
        judged = None
        with caught(self.forwards[POLICY], self.below) as states:
            if self._judges():
                self.activate(REWARD)
                judged = self.forwards[POLICY].decode(packed)[packed.last]
        with self.policy.disable_adapter() if self.shared else nullcontext():
            forward = self.forwards[REFERENCE]
            with caught(forward, 0 if states else self.below) as of_reference:
                hidden = forward.decode(packed)
            reference = forward.head_tokens(hidden, packed, temperature)[0]
        below = [by_token(packed, one) for one in (*states, *of_reference)]
        self.activate(VALUE)
        values = self.values(self.forwards[VALUE], trees, below[0] if below else None)
        self.activate(POLICY)
        judged = hidden[packed.last] if judged is None else judged
        return self._look(logprobs, reference, entropy, values, judged, below if keep else [])

    def _judges(self) -> list[str]:
        """The reward's adapter, where it has one on this base; a reward that is a head alone reads the base."""
        return [REWARD] if self.shared and REWARD in self.policy.peft_config else []

    def _look(
        self,
        logprobs: Tensor,
        reference: Tensor,
        entropy: Tensor,
        values: Tensor,
        judged: Tensor,
        below: list[Tensor],
    ) -> Look:
        rewards, sds = None, None
        if self.reward is not None:
            rewards, sds = self.reward.of_states(judged.float())
        return Look(logprobs, reference, entropy, values, rewards, sds, below[0] if below else None)


def _forward(loaded: Loaded) -> TreeForward:
    forward = TreeForward.of(loaded.model, loaded.hardware)
    if not forward.plain_head:
        raise UserError(f"the logits of {loaded.ref} are not one matrix product, which PPO needs")
    return forward


def _value_head(loaded: Loaded) -> nn.Linear:
    """(D -> 1), of zeros."""
    head = nn.Linear(int(loaded.model.config.get_text_config().hidden_size), 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head.to(loaded.hardware.device)
