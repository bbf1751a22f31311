"""One frozen dataclass per command: its fields are the flags, the recipe's keys and the documentation.

    palate sft --epochs 3                     flags win over ...
    palate sft --recipe recipes/conversations.yaml ... the recipe's `sft:` section, which wins over ...
    palate.yaml                               ... the project's `sft:` section, which wins over the defaults

The sentence under each field is what `palate COMMAND --help` prints. Nothing here imports torch, duckdb or
gradio, so help is quick.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from tyro.conf import Positional, arg

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16"]
BUILTIN = "builtin"  # names the model that comes with the package


class UserError(Exception):
    """What went wrong, the value, and what to do: printed as one line, never as a traceback."""


class Paused(UserError):
    """Nothing went wrong: it is somebody else's turn, and the message says whose. The run is stopped, not failed."""


@dataclass(frozen=True)
class InitConfig:
    """Make a project folder: palate.yaml, a database, runs/."""

    folder: Positional[Path] = Path(".")
    """Where; made when it does not exist."""
    base: str = BUILTIN
    """The base model: `builtin`, a local folder, or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct."""
    name: str | None = None
    """The project's name on screens and reports. Default: the folder's name."""
    store: str | None = None
    """The address of a running `palate label` on another machine, e.g. https://label.example.org: the records
    live there, runs and models here. Its token: PALATE_TOKEN, or the file `token` in the folder."""


@dataclass(frozen=True)
class ImportConfig:
    """Read prompts, demonstrations, preferences or rankings from files (JSONL, JSON, CSV, Parquet, .gz)."""

    files: Positional[tuple[Path, ...]]
    """The files. Importing the same file twice adds nothing."""
    kind: Annotated[
        Literal["auto", "prompts", "demonstrations", "preferences", "rankings"], arg(name="as")
    ] = "auto"
    """What the rows are. `auto` looks at their columns and says what it found."""
    project: Path = Path(".")
    """The project folder."""
    group_by: str | None = None
    """A regular expression on the last user turn: prompts with the same first group stay in one split."""
    source: str | None = None
    """A name for where the rows come from. Default: the rows' own `source` column, else the file's name."""


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
class SampleConfig:
    """Sample completions to rank: k answers to each prompt, from one or several models."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `sample:` section; flags win over it."""
    k: Annotated[int, arg(aliases=["-k"])] = 4
    """Different completions for each prompt (2..9)."""
    models: tuple[str, ...] = ()
    """Runs, folders, hub ids or OpenAI-compatible servers (http://host:8000/v1#MODEL) to sample from, in turn. Default: the
    latest SFT, DPO or PPO run."""
    temperature: tuple[float, ...] = (1.0,)
    """One or several temperatures, in turn."""
    top_p: float = 1.0
    """Nucleus sampling; 1.0 keeps the model's own distribution."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    rank: tuple[int, ...] = ()
    """How many of a prompt's k completions one comparison shows: `--rank 2` makes all pairs, `--rank 2 3` pairs and
    threes, among which `palate label --select` chooses. Default: all k in one comparison."""
    features: bool = True
    """Compute frozen features of the completions too (palate reward features): what is chosen from between two votes."""
    split: Literal["train", "test", "all"] = "train"
    """Which prompts. Held-out (test) prompts are kept for evaluation."""
    limit: int | None = None
    """At most this many prompts, those without candidates first."""
    source: str | None = None
    """Only prompts from this source."""
    batch_size: int = 128
    """Sequences generated at once."""
    seed: int = 0
    """Makes the samples reproducible."""
    device: Device = "auto"
    """Where to generate."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class LabelConfig:
    """Open the browser app: rank completions, see the statistics, invite people, talk to models."""

    recipe: Path | None = None
    """A YAML file; its section `label` sets defaults."""
    project: Path = Path(".")
    """The project folder."""
    host: str = "127.0.0.1"
    """The address to listen on. Anything but localhost: put it behind a proxy with TLS."""
    port: int = 7860
    """The port to listen on; the next free one when it is taken."""
    annotator: str | None = None
    """Your name on the votes. Default: asked for on the first screen."""
    browser: bool = True
    """Open the page when a desktop is there."""
    overlap: int = 1
    """Ask for this many annotators' answers ..."""
    overlap_share: float = 1.0
    """... on this share of the comparisons (0..1, chosen by hash); the others keep their own number."""
    lease_minutes: float = 10.0
    """An item whose page gave no sign of life for so long is offered to others."""
    repeat_share: float = 0.0
    """Show an annotator this share of their items once more, later, in reversed order (0..0.5)."""
    gold_share: float = 0.0
    """Share of items that are gold questions, as long as there are some (0..0.5)."""
    partial: bool = True
    """Accept rankings of three or more answers that leave some of them out."""
    select: Literal["random", "information", "dpo"] = "random"
    """Which comparison comes next: by chance; `information`: the most open order per second of reading, for a reward
    model; `dpo`: the largest certain gap. The latter two need features (palate sample, palate reward features)."""
    random_share: float = 0.15
    """With --select: this share stays by chance (0.05..1): unbiased statistics, and the control of the next setting."""
    control: bool = True
    """Measure whether choosing helps, and go back to chance, with a notice on Review, when that is not shown."""
    diversity: float = 0.0
    """With --select information: keep away from prompts like those asked already (weight of the log distance)."""
    criteria: tuple[str, ...] = ()
    """Rate every answer on these, 1 to 5: --criteria helpful honest harmless."""
    guidelines: Path | None = None
    """A Markdown file with instructions; a changed file becomes a new version."""
    language: str = "en"
    """Language of the screens: en, de."""
    endpoints: Path | None = None
    """A YAML list of OpenAI-compatible endpoints for the live screen: name, url, model, key_env."""
    webhooks: Path | None = None
    """A YAML list of webhooks: url, secret_env, events (vote, batch_done)."""
    root_path: str = ""
    """Where a proxy mounts the app, e.g. /palate."""
    trusted_hosts: tuple[str, ...] = ()
    """Host names under which a proxy is reached; localhost and --host are always trusted."""
    proxies: tuple[str, ...] = ()
    """Addresses of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    backup_minutes: float = 60.0
    """Back the database up so often while votes come in; 0 never."""


@dataclass(frozen=True)
class SimulateConfig:
    """Let rule-based annotators vote, through the same code as people; their votes are marked `rule`."""

    project: Path = Path(".")
    """The project folder."""
    taste: str = "vivid"
    """What they like: vivid, terse, no_cliches, camera."""
    scores: str | None = None
    """Instead of a taste: vote by the scores that this reward run has stored (palate reward score --comparisons), as one
    annotator of kind `model`, without noise. So DPO learns from what a reward makes of few votes."""
    annotators: int = 4
    """How many of them."""
    votes: int | None = None
    """Votes in all. Default: one per open comparison."""
    overlap: float = 0.1
    """Share of the comparisons that two annotators answer."""
    noise: float = 0.3
    """Spread of the judgement error, in units of the taste's own spread over the candidates."""
    tie_margin: float = 0.1
    """Answers closer than this (same units) are called equal."""
    side_bias: float = 0.0
    """Added to whichever answer is shown first (same units)."""
    laziness: float = 0.0
    """Share of votes given at random."""
    select: Literal["random", "information", "dpo"] = "random"
    """Which comparison comes next, as in palate label. Beside a running server, the server's own setting counts."""
    random_share: float = 0.15
    """With --select: this share stays by chance (0.05..1)."""
    control: bool = True
    """With --select: go back to chance when votes do not show that choosing helps."""
    seed: int = 0
    """Makes the votes reproducible."""


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
class PpoConfig:
    """Proximal policy optimisation: the model writes, a reward judges, LoRA on the SFT model learns from it."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `ppo:` section; flags win over it."""
    base: str | None = None
    """The model to start from, which is also the reference. Default: the latest SFT run."""
    reward: tuple[str, ...] = ()
    """What judges, each as SOURCE or SOURCE=WEIGHT, added up: a reward run, a sequence-classification model (folder or hub
    id), a function (file.py:name), an address (https://...). Default: the latest reward run."""
    pessimism: float = 0.0
    """Take so many standard deviations off the rewards of runs that know them: what is not known counts as worse."""
    method: Literal["lora", "full"] = "lora"
    """`lora`: policy, value and reward are adapters on one base; `full`: every weight, and three models in memory."""
    source: str | None = None
    """Only prompts from this source (of the train split)."""
    limit: int | None = None
    """Use at most this many prompts."""
    steps: int = 40
    """Rollouts, each followed by updates."""
    batch_size: int = 128
    """Completions per rollout."""
    k: Annotated[int, arg(aliases=["-k"])] = 4
    """Completions per prompt in a rollout; they share the prompt's computation."""
    ppo_epochs: int = 2
    """Passes over a rollout."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Peak learning rate of the policy; falls linearly to 0. Default: by method and model size."""
    value_learning_rate: float | None = None
    """The same of the value. Default: the policy's."""
    value_warmup: int = 2
    """In the first so many rollouts only the value learns."""
    kl: float = 0.05
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
    reward_clip: float | None = 5.0
    """Rewards count only between minus and plus this."""
    missing_eos_penalty: float = 1.0
    """Taken off the reward of a completion that did not end by itself."""
    overlong_buffer: int = 0
    """Over the last so many tokens before --max-new-tokens ..."""
    overlong_penalty: float = 1.0
    """... up to this is taken off, linearly (Yu et al. 2025)."""
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
    """Go on with a stopped run, e.g. ppo-2, by its own settings."""
    seed: int = 0
    """Order of the prompts, samples and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class RlooConfig:
    """REINFORCE leave-one-out: several answers to a prompt are each other's baseline; LoRA on the SFT model."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `rloo:` section; flags win over it."""
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
    """Completions per prompt, at least 2: the others are the baseline of each."""
    passes: int = 1
    """Passes over a rollout."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Peak learning rate; falls linearly to 0. Default: by model size (LoRA wants about ten times that of full training)."""
    kl: float = 0.05
    """What a nat away from the reference costs, taken off the reward of each completion."""
    clip: float = 0.2
    """A completion's ratio counts only within 1 - clip .. 1 + clip."""
    normalize: bool = True
    """Scale advantages to mean 0 and standard deviation 1 within a rollout."""
    reward_clip: float | None = 5.0
    """Rewards count only between minus and plus this."""
    missing_eos_penalty: float = 1.0
    """Taken off the reward of a completion that did not end by itself."""
    temperature: float = 1.0
    """Sampling temperature; logits are divided by it everywhere."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    lora_rank: int = 16
    """Rank of the adapter; alpha is twice the rank."""
    best_of: int = 16
    """Afterwards: compare with the best of so many answers of the start, by the same reward. 0: not."""
    resume: str | None = None
    """Go on with a stopped run, e.g. rloo-2, by its own settings."""
    seed: int = 0
    """Order of the prompts, samples and initialisation."""
    device: Device = "auto"
    """Where to train."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class GrpoConfig:
    """Group relative policy optimisation: several answers to a prompt are each other's scale; LoRA on the SFT model."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `grpo:` section; flags win over it."""
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
    """Completions per prompt, at least 2: their mean is the baseline."""
    passes: int = 1
    """Passes over a rollout."""
    minibatches: int = 2
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Peak learning rate; falls linearly to 0. Default: by model size (LoRA wants about ten times that of full training)."""
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
    reward_clip: float | None = 5.0
    """Rewards count only between minus and plus this."""
    missing_eos_penalty: float = 1.0
    """Taken off the reward of a completion that did not end by itself."""
    temperature: float = 1.0
    """Sampling temperature; logits are divided by it everywhere."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    lora_rank: int = 16
    """Rank of the adapter; alpha is twice the rank."""
    best_of: int = 16
    """Afterwards: compare with the best of so many answers of the start, by the same reward. 0: not."""
    resume: str | None = None
    """Go on with a stopped run, e.g. grpo-2, by its own settings."""
    seed: int = 0
    """Order of the prompts, samples and initialisation."""
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


@dataclass(frozen=True)
class LoopConfig:
    """Rounds of sampling, votes, reward and policy, each on what the last one learned; stops where people vote."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with a `loop:` section; flags win over it."""
    base: str | None = None
    """The model to start from. Default: the latest SFT run, else the project's base."""
    rounds: int = 2
    """How many."""
    prompts: int = 150
    """Prompts that each round samples answers to, those without comparisons first."""
    k: Annotated[int, arg(aliases=["-k"])] = 4
    """Answers to each prompt (2..9), in one comparison."""
    server: str | None = None
    """Sample the answers from an OpenAI-compatible server instead, as URL or URL#MODEL (see palate sample --models). It must
    serve the current policy: palate loop can't know."""
    votes: int | None = None
    """A round goes on when so many of its comparisons have a vote. Default: all."""
    taste: str | None = None
    """Let rule annotators with this taste vote (palate simulate) instead of people."""
    annotators: int = 4
    """With --taste: how many of them."""
    select: Literal["random", "information", "dpo"] = "random"
    """Which comparisons are asked (palate label): the loop computes the features that choosing needs, and with --votes fewer
    than --prompts the rest stays unasked."""
    policy: Literal["dpo", "ppo"] = "dpo"
    """How the policy learns; each round starts from the last round's policy, which is its reference."""
    eval: bool = True
    """Compare with the start on held-out prompts after each round."""
    source: str | None = None
    """Only prompts from this source."""
    resume: str | None = None
    """Go on with a loop that waits for votes or was stopped, e.g. loop-1, by its own settings."""
    seed: int = 0
    """Of all steps; each round adds one."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class EvalConfig:
    """Before and after on held-out prompts: samples, learned reward, win rate, KL, length; an HTML report."""

    project: Path = Path(".")
    """The project folder."""
    recipe: Path | None = None
    """A YAML file with an `eval:` section; flags win over it."""
    models: tuple[str, ...] = ()
    """What to compare, the baseline among them. Default: base, latest SFT, latest DPO made from it."""
    baseline: str | None = None
    """Win rates are against this one. Default: the latest SFT run."""
    reward: str | None = None
    """The reward run that judges. Default: the latest."""
    taste: str | None = None
    """A rule that judges as well (vivid, terse, ...): the demo's hidden taste. No training stage reads it."""
    prompts: int = 200
    """Held-out prompts to use, at most."""
    samples: int = 2
    """Completions of each model for each prompt."""
    temperature: float = 1.0
    """Sampling temperature, the same for all models."""
    max_new_tokens: int = 96
    """Longest completion, in tokens."""
    source: str | None = None
    """Only prompts from this source."""
    batch_size: int = 128
    """Sequences at once."""
    seed: int = 0
    """Makes the samples and the intervals reproducible."""
    device: Device = "auto"
    """Where to compute."""
    dtype: Dtype = "auto"
    """Arithmetic of the forward pass."""


@dataclass(frozen=True)
class RunsConfig:
    """List the runs, or walk from one back to the votes, files and settings that made it."""

    action: Positional[Literal["list", "show"]] = "list"
    """`list` prints all; `show RUN` walks back from one."""
    run: Positional[str | None] = None
    """The run to show, e.g. dpo-1."""
    project: Path = Path(".")
    """The project folder."""
    json: bool = False
    """Print JSON instead of tables."""
    votes: bool = False
    """Print the id of every vote too."""


@dataclass(frozen=True)
class StatsConfig:
    """What the votes say: progress, agreement, annotators, models, and what training would take."""

    project: Path = Path(".")
    """The project folder."""
    section: Literal["progress", "agreement", "annotators", "models", "data", "training"] | None = None
    """Only this section of Review."""
    kind: Literal["human", "rule", "model"] = "human"
    """Votes of people, of rules (palate simulate), or of models as judges; kinds never mix."""
    source: str | None = None
    """Only votes on prompts from this source."""
    tag: str | None = None
    """Only votes on prompts with this tag."""
    since: str | None = None
    """The first day whose votes count, e.g. 2026-08-01 (UTC)."""
    until: str | None = None
    """The last day whose votes count (UTC)."""
    json: bool = False
    """Print JSON instead of tables."""
    html: Path | None = None
    """Write everything, with plots, into this one HTML file instead."""


@dataclass(frozen=True)
class ViewConfig:
    """Saved views: which votes training takes, how they are put together, and what that does to them."""

    name: Positional[str | None] = None
    """The view. Alone: show it; with any setting below: save it so; without a name: list all."""
    aggregate: Literal["vote", "majority", "reliability"] | None = None
    """`vote`: each vote as it is; `majority`: the label most annotators gave a pair; `reliability`: votes weighted by
    how often their annotator is right. Default: vote."""
    min_strength: Literal[1, 2, 3] | None = None
    """Only pairs won by at least this: 1 slightly, 2 better, 3 much better. Where nobody gave one, the pair is left out."""
    unknown_strength: bool = False
    """With --min-strength: keep pairs whose strength nobody gave."""
    ties: bool = True
    """Keep pairs that are tied; a majority that is split evenly is a tie."""
    min_agreement: float | None = None
    """Only pairs on which this share of the votes says the same, of two votes or more, e.g. 0.6."""
    keep_single: bool = False
    """With --min-agreement: keep pairs that have one vote."""
    exclude: tuple[str, ...] = ()
    """Annotators whose votes don't count, by name or id."""
    kinds: tuple[Literal["human", "rule", "model"], ...] = ()
    """Kinds of annotators whose votes count. Default: all."""
    source: str | None = None
    """Only votes on prompts from this source."""
    tag: str | None = None
    """Only votes on prompts with this tag."""
    purposes: tuple[Literal["train", "random", "repeat", "gold"], ...] = ("train", "random", "repeat")
    """Only votes on comparisons made for these purposes."""
    since: str | None = None
    """The first day whose votes count, e.g. 2026-03-01 (UTC)."""
    until: str | None = None
    """The last day whose votes count (UTC)."""
    refresh: bool = False
    """Save it once more as it is, with weights of reliability from the votes there are now."""
    delete: bool = False
    """Forget the view."""
    json: bool = False
    """Print JSON instead of tables."""
    project: Path = Path(".")
    """The project folder."""


@dataclass(frozen=True)
class ExportConfig:
    """Write preferences or votes to a file that other tools read (JSONL or Parquet, by its ending)."""

    file: Positional[Path]
    """Where to, e.g. preferences.jsonl, votes.jsonl.gz or votes.parquet."""
    what: Literal["preferences", "votes"] = "preferences"
    """`preferences`: prompt, chosen, rejected in TRL's conversational columns; `votes`: one row per vote."""
    annotators: Literal["all", "human", "rule", "model"] = "all"
    """Whose votes."""
    project: Path = Path(".")
    """The project folder."""


@dataclass(frozen=True)
class RecoverConfig:
    """Put a database right that can't be opened: from its log, a backup and the journal of votes."""

    project: Path = Path(".")
    """The project folder."""
    dry_run: bool = False
    """Say what would be done, and change nothing."""


@dataclass(frozen=True)
class BackupConfig:
    """Back the database up, while the app runs or not; read again and compared before it counts."""

    project: Path = Path(".")
    """The project folder."""
    keep: int = 8
    """Keep the newest backups, so many ..."""
    days: int = 14
    """... and the last one of each of so many days."""


@dataclass(frozen=True)
class RestoreConfig:
    """Put a backup back, and every vote that was given since on top of it, from the journal."""

    backup: Positional[str]
    """Which one: `latest`, its name in backups/, or a file."""
    project: Path = Path(".")
    """The project folder."""
    to: Path | None = None
    """Make the restored database a project of its own, in this folder. Default: the project's place."""
    force: bool = False
    """Put it where a database is already; that one is kept under recovery/."""


@dataclass(frozen=True)
class DemoConfig:
    """The whole loop on the built-in model: SFT, sampling, simulated votes, reward, DPO, evaluation."""

    folder: Positional[Path] = Path("demo")
    """The demo's project folder; a finished demo there is replaced."""
    seed: int = 0
    """Everything follows from it."""
    prompts: int = 300
    """Prompts to rank answers to."""
    demonstrations: int = 800
    """Demonstrations for SFT."""
    browser: bool = True
    """Open the report when a desktop is there."""
    quick: bool = False
    """A tenth of everything: shows that it runs, proves nothing."""


Config = TypeVar("Config")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, or a UserError that names the file and the line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of settings, it holds a {type(content).__name__}")
    return content


def from_mapping(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """A config with some fields taken from YAML; an unknown or ill-typed key is a UserError."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(f"{where}: unknown setting '{key}'; known are {', '.join(sorted(known))}")
    clean: dict[str, Any] = {}
    for key, value in values.items():
        annotation = str(known[key].type)
        if "tuple" in annotation and isinstance(value, list):
            value = tuple(value)
        if "Path" in annotation and isinstance(value, str):
            value = Path(value)
        clean[key] = value
    return kind(**clean)


def as_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values, for a run's record."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
