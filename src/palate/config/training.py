"""From demonstrations, votes and thumbs to a model, without sampling from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palate.config.core import Device, Dtype


@dataclass(frozen=True)
class SftConfig:
    """Supervised fine-tuning: make a starting model from demonstrations (or from best-ranked completions)."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with an `sft:` section; flags win over it."""
    base: str | None = None
    """The model to start from: `builtin`, a folder, a hub id or a run. Default: the project's base."""
    method: Literal["full", "lora", "qlora", "dora", "rslora", "freeze"] = "full"
    """`full` trains every weight; `lora` adapters on all linear layers, `qlora` the same on a base held in 4 bits
    (CUDA), `dora` with lengths that train too, `rslora` scaled for high ranks; `freeze` the last layers, norms or head."""
    layers: int = 1
    """With method freeze: so many of the last layers train, and the final norm; 0: none."""
    train: tuple[Literal["norms", "head"], ...] = ()
    """With method freeze, besides the last layers: every norm, or the output head (untied from the embeddings first)."""
    data: Literal["auto", "demonstrations", "best_ranked"] = "auto"
    """`auto`: demonstrations when there are any, else the completions that were ranked best."""
    epochs: float = 2.0
    """Passes over the rows."""
    learning_rate: float | None = None
    """Peak learning rate. Default: by method and model size; the table is in docs/sft.md."""
    batch_size: int = 16
    """Conversations per optimiser step."""
    max_length: int = 1024
    """Tokens per conversation; longer ones are cut at the prompt's start, and counted."""
    lora_rank: int | None = None
    """Rank of the adapters. Default: 16, for qlora 64. Alpha is twice the rank; for qlora 16, for rslora 8."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    limit: int | None = None
    """Use at most this many rows (for a trial)."""
    resume: str | None = None
    """Go on with a stopped run, e.g. sft-2, by its own settings and rows."""
    seed: int = 0
    """Order of the rows and initialisation of the adapters."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass; weights stay in float32. `auto` probes the hardware."""
    gradient_checkpointing: bool | None = None
    """Trade speed for memory. Default: by model size and free memory."""


@dataclass(frozen=True)
class DpoConfig:
    """Direct preference optimisation: LoRA on the SFT model, from every ranking at once."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `dpo:` section; flags win over it."""
    base: str | None = None
    """The model to start from, which is also the reference. Default: the latest SFT run."""
    annotators: Literal["all", "human", "rule", "model"] = "all"
    """Whose votes."""
    source: str | None = None
    """Only votes on prompts from this source."""
    view: str | None = None
    """A saved view of the votes, by name: which of them count, and how they are put together (palate view)."""
    beta: float = 0.3
    """How dear it is to leave the reference (Rafailov et al. 2023, eq. 7). With a few hundred rankings 0.1, the
    paper's value, wanders off: longer answers, no better ones."""
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    """Of a pair's margin: DPO's own, IPO (Azar et al. 2023), SLiC's hinge, or the unbiased estimate under flipped votes
    (Chowdhury et al. 2024, with --label-smoothing or --annotator-model flips)."""
    objective: Literal["pairs", "plackett_luce"] = "pairs"
    """All pairs of a ranking, or the ranking as a sequence of choices (Plackett-Luce)."""
    ties: Literal["drop", "half", "davidson", "rao_kupper"] = "drop"
    """Ties are left out, count as half a win each way, or have a probability of their own."""
    strength: Literal["ignore", "scale", "margin"] = "ignore"
    """What "much better" does: weigh the pair more, or demand a larger margin (ODPO, Amini et al. 2024)."""
    length_normalised: bool = False
    """Rewards are means over tokens instead of sums, so that long answers move no margin by their length; --beta then wants
    about the length of an answer times its usual value."""
    sft_weight: float = 0.0
    """Add so much of the best answers' negative log-likelihood per token (Pang et al. 2024): keeps them from falling."""
    label_smoothing: float = 0.0
    """Assumed share of flipped votes (conservative DPO)."""
    annotator_model: Literal["flips", "off"] = "off"
    """`flips`: each annotator's own share of wrong votes, as the latest reward run on these votes estimated it
    (conservative DPO pair by pair; --label-smoothing is then the least)."""
    epochs: float = 3.0
    """Passes over the rankings."""
    learning_rate: float | None = None
    """Peak learning rate. Default: by model size."""
    batch_size: int = 16
    """Rankings per optimiser step."""
    lora_rank: int = 16
    """Rank of the adapters; alpha is twice the rank."""
    max_length: int = 1024
    """Tokens of prompt and completion; longer prompts are cut at the start, and counted."""
    limit: int | None = None
    """Use at most this many rankings (for a trial)."""
    resume: str | None = None
    """Go on with a stopped run, e.g. dpo-2, by its own settings and rankings."""
    seed: int = 0
    """Order of the rows and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class KtoConfig:
    """Kahneman-Tversky optimisation: LoRA on the SFT model, from answers that are good or bad by themselves."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `kto:` section; flags win over it."""
    base: str | None = None
    """The model to start from, which is also the reference. Default: the latest SFT run."""
    data: tuple[Path, ...] = ()
    """Files with prompt, completion and label (true, false), e.g. thumbs from logs; votes are then left out."""
    annotators: Literal["all", "human", "rule", "model"] = "all"
    """Whose votes: the best answers of a ranking are good, the worst bad, those that a vote calls all bad too."""
    source: str | None = None
    """Only votes on prompts from this source."""
    view: str | None = None
    """A saved view of the votes, by name (palate view)."""
    beta: float = 0.1
    """How dear it is to leave the reference (Ethayarajh et al. 2024, eq. 7)."""
    epochs: float = 2.0
    """Passes over the answers."""
    learning_rate: float | None = None
    """Peak learning rate. Default: by model size (LoRA wants about ten times that of full training)."""
    batch_size: int = 16
    """Answers per optimiser step, at least 2; each batch has its share of good and bad."""
    lora_rank: int = 16
    """Rank of the adapter; alpha is twice the rank."""
    max_length: int = 1024
    """Tokens of prompt and completion; longer prompts are cut at the start, and counted."""
    limit: int | None = None
    """Use at most this many answers (for a trial)."""
    resume: str | None = None
    """Go on with a stopped run, e.g. kto-2, by its own settings and answers."""
    seed: int = 0
    """Order of the rows and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""
