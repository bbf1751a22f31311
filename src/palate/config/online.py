"""Methods that learn from what the model itself writes: what they share, and what each has for itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from palate.config.core import Device, Dtype


@dataclass(frozen=True)
class OnlineConfig:
    """What PPO, RLOO and GRPO share."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a section of the command's name; flags win over it."""
    base: str | None = None
    """The model to start from, which is also the reference. Default: the latest SFT run."""
    reward: tuple[str, ...] = ()
    """What judges, each as SOURCE or SOURCE=WEIGHT, added up: a reward run, a sequence-classification model (folder or hub
    id), a function (file.py:name), an address (https://...). Default: the latest reward run."""
    pessimism: float = 0.0
    """Take so many standard deviations off the rewards of runs that know them: what is not known counts as worse."""
    source: str | None = None
    """Only prompts from this source (of the train split)."""
    limit: int | None = None
    """Use at most this many prompts."""
    steps: int = 40
    """Rollouts, each followed by updates."""
    batch_size: int = 128
    """Completions per rollout."""
    k: Annotated[int, arg(aliases=["-k"])] = 4
    """Completions per prompt of a rollout; they share the prompt's computation."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Peak learning rate of the policy; falls linearly to 0. Default: by method and model size."""
    reward_clip: float | None = 5.0
    """Rewards count only between minus and plus this."""
    missing_eos_penalty: float = 1.0
    """Taken off the reward of a completion that did not end by itself."""
    temperature: float = 1.0
    """Sampling temperature; logits are divided by it everywhere."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    lora_rank: int = 16
    """Rank of the adapters; alpha is twice the rank."""
    guard: Literal["stop", "warn", "off"] = "stop"
    """Against over-optimisation: `stop` ends when more reward is no longer to be believed and keeps the checkpoint before it,
    `warn` trains on and keeps it, `off` keeps the last."""
    keep_every: int = 3
    """Rollouts between two checkpoints of the policy, among which the guard chooses."""
    best_of: int = 16
    """Afterwards: compare with the best of so many answers of the start, by the same reward. 0: not."""
    resume: str | None = None
    """Go on with a stopped run by its name, e.g. ppo-2, and by its own settings."""
    seed: int = 0
    """Order of the prompts, samples and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class PpoConfig(OnlineConfig):
    """Proximal policy optimisation: the model writes, a reward judges, LoRA on the SFT model learns from it."""

    recipe: Path | None = None
    """A YAML file with a `ppo:` section; flags win over it."""
    method: Literal["lora", "full"] = "lora"
    """`lora`: policy, value and reward are adapters on one base; `full`: every weight, and three models in memory."""
    ppo_epochs: int = 2
    """Passes over a rollout."""
    value_learning_rate: float | None = None
    """Peak learning rate of the value. Default: with LoRA five times the policy's, else the policy's."""
    value_layers: float = 0.5
    """Share of the layers, from the top, that the value trains with LoRA; the others stay as the reward's, and what they put
    out is computed once a rollout. 1: all of them."""
    value_warmup: int = 2
    """In the first so many rollouts only the value learns."""
    kl: float = 0.1
    """Coefficient of the KL penalty on every token; the start where --kl-target is given."""
    kl_target: float | None = None
    """Nats per completion that an adaptive coefficient aims at (Ziegler et al. 2019). Default: the coefficient is fixed."""
    kl_horizon: int = 10_000
    """Episodes in which an adaptive coefficient may change by a fifth."""
    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """Lambda of the generalised advantage estimate."""
    clip: float = 0.2
    """Ratios count only within 1 - clip .. 1 + clip."""
    clip_high: float | None = None
    """Another limit upwards (clip-higher, Yu et al. 2025). Default: the same."""
    dual_clip: float | None = None
    """With a negative advantage the loss is at most so many times its size (Ye et al. 2020), e.g. 3."""
    value_clip: float | None = 0.2
    """Values count only so far from what they were."""
    target_kl: float | None = 0.1
    """End a rollout's updates when the policy has moved so many nats per token away from what wrote it."""
    whiten_rewards: bool = False
    """Scale token rewards to a standard deviation of 1 within a batch."""
    overlong_buffer: int = 0
    """Over the last so many tokens before --max-new-tokens ..."""
    overlong_penalty: float = 1.0
    """... up to this is taken off, linearly (Yu et al. 2025)."""


@dataclass(frozen=True)
class RlooConfig(OnlineConfig):
    """REINFORCE leave-one-out: several answers to a prompt are each other's baseline; LoRA on the SFT model."""

    recipe: Path | None = None
    """A YAML file with a `rloo:` section; flags win over it."""
    passes: int = 1
    """Passes over a rollout."""
    kl: float = 0.1
    """What a nat away from the reference costs, taken off the reward of each completion."""
    clip: float = 0.2
    """A completion's ratio counts only within 1 - clip .. 1 + clip."""
    normalize: bool = True
    """Scale advantages to mean 0 and standard deviation 1 within a rollout."""


@dataclass(frozen=True)
class GrpoConfig(OnlineConfig):
    """Group relative policy optimisation: several answers to a prompt are each other's scale; LoRA on the SFT model."""

    recipe: Path | None = None
    """A YAML file with a `grpo:` section; flags win over it."""
    passes: int = 1
    """Passes over a rollout."""
    kl: float = 0.05
    """Weight of the distance from the reference (k3, per token) in the loss."""
    clip: float = 0.2
    """A token's ratio counts only within 1 - clip .. 1 + clip."""
    clip_high: float | None = None
    """Another limit upwards (clip-higher, Yu et al. 2025). Default: the same."""
    loss: Literal["dapo", "dr_grpo", "grpo"] = "dapo"
    """What is averaged: `dapo` tokens of the whole batch, `dr_grpo` tokens by the longest possible length (no bias to
    length), `grpo` answers (short ones count more per token; Shao et al. 2024)."""
    scale: Literal["group", "batch", "none"] = "batch"
    """Advantages are divided by the rewards' standard deviation over the prompt's answers (Shao et al. 2024; noisy at small
    -k), over the rollout, or not (Liu et al. 2025)."""
