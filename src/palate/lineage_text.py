"""Lineage as people read it: the table of runs, the tree behind one run, the model card.

Pure: takes what lineage.py found, returns text.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palate.data.records import Run

if TYPE_CHECKING:
    from palate.lineage import Input, Lineage, Step, Votes, Weights

SHORT = 12  # hex digits of a hash: enough to tell files apart by eye


def run_table(runs: Sequence[Run]) -> str:
    """One line for each run, oldest first."""
    lines = [("run", "status", "parents", "when (UTC)", "took", "")]
    for run in runs:
        lines.append((run.id, run.status, ", ".join(run.parents) or "–", _when(run), _took(run), figure(run)))
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[5]]).rstrip()
        for line in lines
    )


def figure(run: Run) -> str:
    """The one figure to know a run by; empty while there is none."""
    metrics = run.metrics
    if run.error:
        return run.error.splitlines()[0][:90]
    if "headline" in metrics:
        return str(metrics["headline"])
    agreement = metrics.get("votes") if run.stage == "reward" else metrics.get("held_out")
    if run.stage == "ppo" and "reward" in metrics:
        return (
            f"reward {metrics['reward_before']:+.2f} -> {metrics['reward']:+.2f} on held-out prompts, "
            f"{metrics['kl']:.1f} nats from its start"
        )
    if run.stage in ("reward", "dpo") and agreement:
        return (
            f"orders {_share(agreement['scores']['value'])} of {agreement['pairs']:,} held-out pairs as voted "
            f"(the longer one: {_share(agreement['longer']['value'])})"
        )
    plain = {k: v for k, v in metrics.items() if v and isinstance(v, int | float) and not isinstance(v, bool)}
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in list(plain.items())[:3])


def text(found: "Lineage", votes: bool = False, roots: Sequence[str] = ()) -> str:
    """The tree of runs behind `roots` (default: all); a run that stands there already is named, not repeated."""
    lines: list[str] = []
    told: set[str] = set()
    for root_id in roots or (found.root,):
        if root_id not in told:
            _tree(found, root_id, "", "", "", told, lines, votes)
    root = found.steps[found.root].run
    lines += ["", f"versions  {', '.join(f'{name} {v}' for name, v in root.versions.items())}"]
    checked = [one for step in found.steps.values() for one in step.inputs if one.kind == "rows"]
    problems = found.problems
    if checked and not problems:
        lines.append(f"verified  all {len(checked)} frozen tables hold what the runs used")
    lines += [f"problem   {problem}" for problem in problems]
    lines += [f"note      {note}" for note in found.notes]
    return "\n".join(lines)


def _tree(
    found: "Lineage",
    run_id: str,
    why: str,
    first: str,
    rest: str,
    told: set[str],
    lines: list[str],
    votes: bool,
) -> None:
    """Append a run's lines and those of the runs behind it. `first` and `rest` draw the branches."""
    if run_id not in found.steps or run_id in told:
        lines.append(f"{first}{run_id}{why}{' (above)' if run_id in told else ' (gone)'}")
        return
    told.add(run_id)
    step = found.steps[run_id]
    lines.append(f"{first}{run_id}{why}  {step.run.status}, {_when(step.run)} UTC, {_took(step.run)}")
    origins = list(step.origins.items())
    bar = "│ " if origins else "  "
    lines += [f"{rest}{bar}  {line}" for line in details(step, votes)]
    for place, (origin, reasons) in enumerate(origins):
        last = place == len(origins) - 1
        _tree(
            found, origin, f"  ({', '.join(reasons)})", rest + ("└─ " if last else "├─ "),
            rest + ("   " if last else "│  "), told, lines, votes,
        )  # fmt: skip


def details(step: "Step", votes: bool = False) -> list[str]:
    """What a run was told, took and made, a line each."""
    run = step.run
    lines = []
    if step.settings:
        lines.append("settings  " + ", ".join(f"{k} {_setting(v)}" for k, v in step.settings.items()))
    lines += [f"took      {_input(one)}" for one in step.inputs]
    if step.votes is not None:
        lines.append(f"votes     {_votes(step.votes)}")
        lines += [f"          {vote}" for vote in step.votes.ids if votes]
    if run.artefact:
        base = run.artefact.get("base")
        on = f" on {base}" if base and run.artefact.get("kind") != "model" else ""
        made = f"made      {run.artefact.get('kind')}{on}, runs/{run.id}/{run.artefact.get('path')}"
        lines.append(made + (f", {_weights(step.weights)}" if step.weights else ""))
    if figure(run):
        lines.append(f"figures   {figure(run)}")
    return lines + [f"note      {note}" for note in step.notes]


def card(project: str, found: "Lineage") -> str:
    """The model card of what `found.root` made."""
    step = found.steps[found.root]
    run = step.run
    kind, base = run.artefact.get("kind"), run.artefact.get("base")
    front = ["---", f"library_name: {'transformers' if kind == 'model' else 'peft'}"]
    if base and base.count("/") == 1 and not base.startswith((".", "/", "~")):  # the hub knows no other bases
        front.append(f"base_model: {json.dumps(base)}")
    front += [f"tags: [palate, {run.stage}]", "---", ""]
    what = {
        "model": f"a whole model, made from `{base}`",
        "adapter": f"a LoRA adapter on `{base}`",
        "reward": f"a reward model (LoRA and score head) on `{base}`: it scores answers, it can't write them",
    }.get(str(kind), "no model")
    votes = [s.votes for s in found.steps.values() if s.votes is not None]
    lines = [
        *front,
        f"# {run.id} of {project}",
        "",
        f"This is {what}, by `palate {run.stage}` on {_when(run)} UTC.",
        "",
        "## Use",
        "",
        "```python",
        *_usage(run),
        "```",
        "",
        "## Figures",
        "",
        *(_figures(run.metrics) or ["None were recorded."]),
        "",
        "## Made from",
        "",
        "```",
        text(found),
        "```",
        "",
        "## Before you use it",
        "",
        *(_limits(votes) or ["- It learned from no votes, only from the demonstrations above."]),
        "- It is as good as the texts and votes behind it, and was judged on prompts like those alone.",
        f"- `palate runs show {run.id} --votes` names every vote; `palate eval` compares it with its base.",
        "",
    ]
    return "\n".join(lines)


def _usage(run: Run) -> list[str]:
    if run.artefact.get("kind") == "model":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("runs/{run.id}/model")',
            f'tokenizer = AutoTokenizer.from_pretrained("runs/{run.id}/model")',
        ]
    module, function = "palate.models", "load"
    if run.artefact.get("kind") == "reward":
        module, function = "palate.reward.model", "load_reward"
    return [
        "from pathlib import Path",
        "from palate.hardware import probe",
        f"from {module} import {function}",
        "from palate.project import Project",
        "",
        f'loaded = {function}(Project.open(Path(".")), "{run.id}", probe())  # in the project\'s folder',
    ]


def _limits(votes: "list[Votes]") -> list[str]:
    kinds = {kind for one in votes for kind in one.by_kind}
    if not votes:
        return []
    if not kinds:
        return ["- Whose votes it learned from was not looked up when this card was written."]
    if kinds == {"human"}:
        return ["- It learned the taste of the people who voted; others may disagree."]
    others = " and ".join(sorted(kinds - {"human"}))
    mixed = "partly " if "human" in kinds else ""
    return [f"- Its votes are {mixed}not people's: they come from {others} annotators."]


def _figures(metrics: dict[str, Any], prefix: str = "") -> list[str]:
    """Every figure as a list item, nested ones with a dotted name."""
    lines = []
    for name, value in metrics.items():
        if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
            shown = f"{_number(value['value'])} [{_number(value['low'])}, {_number(value['high'])}]"
            lines.append(f"- {prefix}{name}: {shown}")
        elif isinstance(value, dict):
            lines += _figures(value, f"{prefix}{name}.")
        elif value is not None:
            lines.append(f"- {prefix}{name}: {_number(value)}")
    return lines


def _input(one: "Input") -> str:
    rows = f", {one.rows:,} rows" if one.rows is not None else ""
    states = {
        "verified": "verified",
        "differs": "CHANGED since the run" if one.kind == "rows" else "changed since",
        "missing": "GONE" if one.kind == "rows" else "not there any more",
    }
    name = Path(one.path).name if one.kind == "file" else one.name
    return f"{name}{rows}, sha256 {one.sha256[:SHORT]}: {states[one.state]}"


def _weights(weights: "Weights") -> str:
    size = f"{weights.size / 1e6:.1f} MB"
    return size if weights.sha256 is None else f"{size}, sha256 {weights.sha256[:SHORT]}"


def _votes(votes: "Votes") -> str:
    kinds = ", ".join(f"{count:,} by {kind}" for kind, count in votes.by_kind.items())
    runs = ", ".join(
        f"{count:,} at the screen" if run == "people" else f"{count:,} from {run}"
        for run, count in votes.by_run.items()
    )
    return "; ".join(
        part for part in (f"{len(votes.ids):,} of {votes.annotators} annotators", kinds, runs) if part
    )


def _setting(value: Any) -> str:
    if isinstance(value, dict):  # a saved view, as it was: its name and what it sets
        rest = [f"{k} {_setting(v)}" for k, v in value.items() if k != "name" and v not in (None, False, [])]
        return f"{value.get('name', '')} ({', '.join(rest)})"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _when(run: Run) -> str:
    return run.created_at[:16].replace("T", " ")


def _took(run: Run) -> str:
    if not run.finished_at:
        return "–"
    took = datetime.fromisoformat(run.finished_at) - datetime.fromisoformat(run.created_at)
    seconds = took.total_seconds()
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
