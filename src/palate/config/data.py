"""What comes in, is made from models to be ranked, is chosen for training, goes out, and is kept safe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from palate.config.core import BUILTIN, Device, Dtype


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
