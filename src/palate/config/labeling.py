"""People at the ranking screen, rules in their place, and what their votes say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


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
