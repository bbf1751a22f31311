"""The whole loop, judging what it made, and looking it up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from palate.config.core import Device, Dtype


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
    policy: Literal["dpo", "ppo", "rloo", "grpo"] = "dpo"
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
