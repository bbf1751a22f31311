"""Reward models and what they are used for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from palate.config.core import Device, Dtype


@dataclass(frozen=True)
class RewardConfig:
    """Learn what people prefer: a score head on the SFT model, from every ranking at once.

    Also: palate reward features | score | best | serve; each has its own --help.
    """

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `reward:` section; flags win over it."""
    base: str | None = None
    """The model to start from: a run (a reward run goes on learning), a folder or a hub id, causal or for sequence
    classification. Default: the latest SFT run, else the project's base."""
    method: Literal["lora", "full", "freeze"] = "lora"
    """`lora` trains adapters on all linear layers, `full` every weight, `freeze` the last --layers layers; all of them
    the score head."""
    layers: int = 0
    """With method freeze: so many of the last layers train; 0 trains the score head alone."""
    annotators: Literal["all", "human", "rule", "model"] = "all"
    """Whose votes."""
    source: str | None = None
    """Only votes on prompts from this source."""
    view: str | None = None
    """A saved view of the votes, by name: which of them count, and how they are put together (palate view)."""
    split_by: str | None = None
    """A regular expression on the prompt's text: prompts with the same first group are held out together."""
    folds: int = 0
    """Cross-validate over this many folds of groups before the final fit; 0 uses the test split alone."""
    annotator_model: Literal["flips", "weights", "off"] = "flips"
    """Estimate along how often each annotator names the better answer, and their lean to a side and to length. `flips`:
    the loss knows how likely a vote is wrong; `weights`: unreliable votes count less; `off`: all count the same."""
    ties: Literal["half", "davidson", "rao_kupper", "drop"] = "half"
    """A tie is half a win each way, has a probability of its own (Davidson 1970, Rao and Kupper 1967), or is left out."""
    all_bad: Literal["below", "ignore"] = "below"
    """Votes that find all answers bad: `below` counts each answer as losing to one of reward 0, about the mean of all."""
    strength: Literal["scale", "margin", "ignore"] = "scale"
    """What "much better" does: weigh the pair more, or demand a larger margin (Touvron et al. 2023)."""
    epochs: float = 1.0
    """Passes over the rankings. More than one: a tenth of the prompts is held back (of 50 or more), and training ends
    after an epoch that does worse on it; the best epoch is kept."""
    learning_rate: float | None = None
    """Peak learning rate. Default: by method and model size."""
    batch_size: int = 16
    """Rankings per optimiser step."""
    lora_rank: int = 16
    """Rank of the adapters (method lora); alpha is twice the rank."""
    max_length: int = 1024
    """Tokens of prompt and completion; longer prompts are cut at the start, and counted."""
    uncertainty: Literal["laplace", "ensemble", "off"] = "laplace"
    """Standard deviations of scores: by the curvature at the last layer, or by last layers refitted on resampled prompts."""
    learning_curve: bool = True
    """Say what more votes would buy, and how annotators compare: one pass over the completions with the base as it is."""
    center: float = 0.01
    """Weight of the penalty that keeps mean scores near zero."""
    limit: int | None = None
    """Use at most this many rankings (for a trial)."""
    resume: str | None = None
    """Go on with a stopped run, e.g. reward-3, by its own settings and rankings."""
    seed: int = 0
    """Order of the rows and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class RewardFeaturesConfig:
    """Compute frozen features of completions: what `palate label` learns from between two votes."""

    project: Path = Path(".")
    """The project folder."""
    base: str | None = None
    """Whose hidden states: an SFT run, a reward run, a folder or a hub id. Default: the latest SFT run, else the base."""
    size: int = 256
    """Numbers per completion, at most (principal components)."""
    source: str | None = None
    """Only completions of prompts from this source."""
    limit: int | None = None
    """At most this many completions (for a trial)."""
    max_length: int = 1024
    """Tokens of prompt and completion; longer prompts are cut at the start, and counted."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class RewardScoreConfig:
    """Score answers: rows of files, standard input (-), or all completions of the project."""

    files: Positional[tuple[Path, ...]] = ()
    """JSONL with `prompt` (a text, or messages) and `completion` or `completions`; `-` reads standard input."""
    comparisons: bool = False
    """Score the completions of the project's comparisons, and store the scores."""
    reward: str | None = None
    """A reward run, or a sequence-classification model by folder or hub id. Default: the latest reward run."""
    pessimism: float = 0.0
    """Take so many standard deviations off each reward (a run that knows them): what is not known counts as worse."""
    out: Path | None = None
    """Where the scored rows go (JSONL). Default: standard output."""
    project: Path = Path(".")
    """The project folder."""
    batch_size: int = 256
    """Rows read at once; each batch is written before the next is read."""
    max_length: int | None = None
    """Tokens of prompt and completion. Default: as the model was trained."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass; scores of a reward run are always computed in float32."""


@dataclass(frozen=True)
class RewardBestConfig:
    """Best of n: sample n answers to each prompt and keep the one that scores highest."""

    prompts: Positional[Path | None] = None
    """JSONL with `prompt`; default: the held-out prompts of the project."""
    n: Annotated[int, arg(aliases=["-n"])] = 16
    """Answers per prompt."""
    model: str | None = None
    """Which model answers. Default: the latest SFT run."""
    reward: str | None = None
    """A reward run, or a sequence-classification model by folder or hub id. Default: the latest reward run."""
    pessimism: float = 0.0
    """Take so many standard deviations off each reward (a run that knows them): what is not known counts as worse."""
    out: Path | None = None
    """Where the chosen rows go (JSONL). Default: standard output."""
    limit: int | None = None
    """At most this many prompts."""
    temperature: float = 1.0
    """Sampling temperature."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    project: Path = Path(".")
    """The project folder."""
    seed: int = 0
    """Makes the samples reproducible."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class RewardServeConfig:
    """Serve scores over HTTP: POST /score."""

    project: Path = Path(".")
    """The project folder."""
    reward: str | None = None
    """A reward run, or a sequence-classification model by folder or hub id. Default: the latest reward run."""
    pessimism: float = 0.0
    """Take so many standard deviations off each reward (a run that knows them): what is not known counts as worse."""
    host: str = "127.0.0.1"
    """The address to listen on. Anything but localhost needs PALATE_SCORE_TOKEN, which callers then send."""
    port: int = 8765
    """The port to listen on."""
    max_length: int | None = None
    """Tokens of prompt and completion. Default: as the model was trained."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass; scores of a reward run are always computed in float32."""
