"""`palate eval`: before and after on held-out prompts.

    palate eval                          base, latest SFT and the DPO run made from it
    palate eval --models sft-1 dpo-2     any runs, folders or hub ids

Every model answers the same prompts with the same settings; the learned reward (and, with --taste, a rule that
no training stage has seen) judges all answers; win rates, KL and lengths are against the baseline, with
intervals. One model is in memory at a time. Here: what to compare and in which order; formulas are in
metrics.py, the figures in summary.py, the words in verdict.py, the page in report.py.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from palate import lineage, lineage_text
from palate.config import POLICIES, EvalConfig, UserError, as_dict
from palate.data.records import Message, Run
from palate.evaluation import answers, report, verdict
from palate.evaluation.summary import Judge, Judged, summarise
from palate.hardware import Hardware, probe
from palate.project import Project

TRAINING = ("sft", "reward", *POLICIES)  # stages that must not have seen a held-out prompt


@dataclass(frozen=True)
class Plan:
    """What is compared with what, judged by whom."""

    models: tuple[str, ...]
    baseline: str
    judges: tuple[Judge, ...]
    notes: tuple[str, ...] = ()  # what the reader might have expected to be there, and is not


@dataclass(frozen=True)
class HeldOut:
    """Prompts that no training stage may use. All of the same length."""

    ids: list[str]
    messages: list[tuple[Message, ...]]


def run(project: Project, config: EvalConfig) -> Run:
    """Sample, judge, measure; writes summary.json, report.html and the frozen samples. Returns the run."""
    if config.samples < 1 or config.prompts < 1:
        raise UserError(f"--samples {config.samples} and --prompts {config.prompts} must be at least 1")
    chosen = plan(project, config)
    prompts = held_out(project, config)
    runs = {record.id: record for record in project.runs()}
    reward = next((judge.name for judge in chosen.judges if judge.kind == "reward"), None)
    parents = tuple(dict.fromkeys(ref for ref in (*chosen.models, reward) if ref is not None and ref in runs))
    print(
        f"takes:  {', '.join(chosen.models)} (baseline {chosen.baseline}); {len(prompts.ids)} held-out prompts, "
        f"{config.samples} answers each; judged by {' and '.join(judge.label for judge in chosen.judges)}"
    )
    for note in chosen.notes:
        print(f"note:   {note}")
    with project.start("eval", as_dict(config), parents, config.seed) as active:
        hardware = probe(config.device, config.dtype)
        judged = judge_all(project, config, hardware, chosen, prompts)
        active.freeze("samples", samples_table(prompts, judged))
        summary = summarise(judged, chosen.baseline, chosen.judges, config.seed)
        summary["seen_in_training"] = seen_in_training(runs, parents, set(prompts.ids))
        summary["reward_on_votes"] = _reward_on_votes(runs[reward]) if reward in runs else None
        summary["notes"] = list(chosen.notes)
        summary["settings"] = {**as_dict(config), "hardware": str(hardware)}
        active.metrics(**main_figures(summary))
        folder = Path(active.path)
        _write(folder / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        page = report.Report(
            active.id, project.name, active.record.created_at[:16].replace("T", " ") + " UTC", summary,
            _shown(prompts, judged), _said(chosen, summary["settings"]), active.record.versions,
            lineage_text.text(lineage.walk(project, active.id), roots=_newest_first(chosen, parents)),
        )  # fmt: skip
        _write(folder / "report.html", report.render(page))
    print(f"\n{table(summary)}\n\n{verdict.verdict(summary)[1]}")
    for line in verdict.reward_lines(summary):
        print(f"reward: {line}")
    for caution in verdict.cautions(summary):
        print(f"but:    {caution}")
    print(f"made:   {folder / 'report.html'}\n        {folder / 'summary.json'}")
    print(f"next:   open the report; palate runs show {chosen.models[-1]} says what made the model")
    return active.record


def plan(project: Project, config: EvalConfig) -> Plan:
    """The models, the baseline and the judges that the settings and the project's runs call for."""
    models, notes = (config.models, []) if config.models else _default_models(project)
    sft = [ref for ref in models if ref.startswith("sft-")]
    baseline = config.baseline or (sft[-1] if sft else models[0])
    models = tuple(dict.fromkeys(models if baseline in models else (baseline, *models)))
    if not config.models and not config.baseline and len(models) == 2:
        baseline = models[0]  # base and SFT alone: the SFT is what is new
    judges = []
    reward = project.run(config.reward) if config.reward else project.latest("reward")
    if reward is not None:
        if reward.artefact.get("kind") != "reward":
            raise UserError(f"--reward {reward.id} is a {reward.stage} run and holds no reward model")
        judges.append(Judge(reward.id, "reward"))
    if config.taste:
        from palate.data.taste import TASTES

        if config.taste not in TASTES:
            raise UserError(f"--taste {config.taste} is unknown; there are: {', '.join(TASTES)}")
        judges.append(Judge(config.taste, "taste"))
    if not judges:
        raise UserError("nothing can judge the answers: run `palate reward` first, or give --taste")
    return Plan(models, baseline, tuple(judges), tuple(notes))


def _default_models(project: Project) -> tuple[tuple[str, ...], list[str]]:
    sft = project.latest("sft")
    if sft is None:
        raise UserError("there is no finished SFT run to evaluate: run `palate sft`, or name --models")
    base = str(sft.artefact.get("base") or project.base)
    tuned = [run for run in project.runs() if run.stage in POLICIES and run.status == "done"]
    made_from_sft = [run for run in tuned if run.artefact.get("base") == sft.id]
    if made_from_sft:
        return (base, sft.id, made_from_sft[-1].id), []
    if tuned:
        older, origin = tuned[-1].id, tuned[-1].artefact.get("base")
        return (base, sft.id), [
            f"no DPO run was made from {sft.id}; {older} was made from {origin}: --models {base} {origin} {older}"
        ]
    return (base, sft.id), [f"no DPO run was made from {sft.id} yet: this compares it with its base"]


def held_out(project: Project, config: EvalConfig) -> HeldOut:
    """Prompts of the test split in the order of their ids, which are digests: as good as shuffled."""
    with project.store() as store:
        rows = store.rows(
            "SELECT id, messages FROM prompt WHERE split = 'test' AND (? IS NULL OR source = ?) ORDER BY id LIMIT ?",
            [config.source, config.source, config.prompts],
        )
        sources = [row["source"] for row in store.rows("SELECT DISTINCT source FROM prompt ORDER BY source")]
    if not rows and config.source is not None:
        known = ", ".join(sources) or "none"
        raise UserError(f"no held-out prompts have the source '{config.source}'; the sources are: {known}")
    if not rows:
        raise UserError(
            "there are no held-out prompts: a tenth of the prompts is held out when they are imported, and rows "
            'with "split": "test" always are; import more prompts'
        )
    return HeldOut([row["id"] for row in rows], [tuple(json.loads(row["messages"])) for row in rows])


def judge_all(
    project: Project, config: EvalConfig, hardware: Hardware, chosen: Plan, prompts: HeldOut
) -> list[Judged]:
    """Every model's answers with their log-probabilities and the scores of every judge."""
    asked = prompts.messages
    found: dict[str, answers.Answers] = {}
    total = len(chosen.models) * len(asked) * config.samples
    with tqdm(total=total, desc="eval", unit="answer", disable=None, leave=False) as bar:
        for stream, ref in enumerate(chosen.models):
            bar.set_description(f"answers of {ref}")
            found[ref] = answers.answer(project, ref, asked, config, hardware, stream, bar.update)
    under_baseline = answers.baseline_log_probabilities(
        project, chosen.baseline, asked, found, config, hardware
    )
    scores = {judge.name: answers.score(project, judge, asked, found, hardware) for judge in chosen.judges}
    return [
        Judged(
            name=ref,
            texts=one.texts,
            tokens=one.tokens,
            characters=np.array([[float(len(text)) for text in row] for row in one.texts]),
            finished=one.finished,
            scores={judge.name: scores[judge.name][ref] for judge in chosen.judges},
            logprobs=one.logprobs,
            baseline_logprobs=under_baseline.get(ref),
        )
        for ref, one in found.items()
    ]


def samples_table(prompts: HeldOut, judged: Sequence[Judged]) -> pa.Table:
    """One row per answer: what was asked, who answered what, and how it was judged."""
    rows = [
        {
            "prompt_id": prompt_id,
            "messages": json.dumps(prompts.messages[p], ensure_ascii=False),
            "model": model.name,
            "sample": s,
            "text": text,
            "tokens": int(model.tokens[p, s]),
            "finish_reason": "stop" if model.finished[p, s] else "length",
            "logprob": None if model.logprobs is None else float(model.logprobs[p, s]),
            "baseline_logprob": None
            if model.baseline_logprobs is None
            else float(model.baseline_logprobs[p, s]),
            **{f"score_{judge}": float(scores[p, s]) for judge, scores in model.scores.items()},
        }
        for model in judged
        for p, prompt_id in enumerate(prompts.ids)
        for s, text in enumerate(model.texts[p])
    ]
    schema = pa.Table.from_pylist(rows[:1]).schema
    for name in ("logprob", "baseline_logprob"):
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.float64()))
    return pa.Table.from_pylist(rows, schema=schema)


def seen_in_training(runs: dict[str, Run], parents: Sequence[str], prompts: set[str]) -> dict[str, int]:
    """For each run that trained a model or the judge: how many of these prompts its training rows held."""
    ancestors = {run_id for parent in parents for run_id in lineage.ancestors(runs, parent)}
    found = {}
    for run_id in sorted(ancestors):
        if runs[run_id].stage not in TRAINING:
            continue
        ids: set[str] = set()
        for path in sorted((Path(runs[run_id].path) / "data").glob("*.parquet")):
            names = set(pq.read_schema(path).names)
            if "prompt_id" in names:
                table = pq.read_table(path, columns=sorted(names & {"prompt_id", "split"}))
                splits = table["split"].to_pylist() if "split" in names else ["train"] * table.num_rows
                rows = zip(table["prompt_id"].to_pylist(), splits, strict=True)
                ids |= {prompt_id for prompt_id, split in rows if split != "test"}
        found[run_id] = len(ids & prompts)
    return found


def main_figures(summary: dict[str, Any]) -> dict[str, Any]:
    """What run.json keeps: the verdict and each model's figures, without the details."""
    return {
        "verdict": verdict.verdict(summary)[0],
        "headline": verdict.headline(summary),
        "prompts": summary["prompts"],
        "samples": summary["samples"],
        "baseline": summary["baseline"],
        "models": {
            model["name"]: {
                "scores": {judge: score["value"] for judge, score in model["scores"].items()},
                "win_rate": {j: found["win_rate"] for j, found in model["against_baseline"].items()},
                "kl": model["kl"] and model["kl"]["value"],
                "tokens": model["tokens"]["value"],
                "finished": model["finished"]["value"],
                "distinct": model["distinct"],
            }
            for model in summary["models"]
        },
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as an aligned table for a terminal."""
    judges = summary["judges"]
    header = ["model"]
    for judge in judges:
        header += [judge["kind"], f"wins by {judge['kind']}"]
    lines = [[*header, "KL", "tokens", "stopped", "distinct"]]
    for model in summary["models"]:
        line = [model["label"]]
        for judge in judges:
            against = model["against_baseline"].get(judge["name"])
            wins = verdict.percent(against["win_rate"]) if against else "baseline"
            line += [verdict.number(model["scores"][judge["name"]]), wins]
        line += [
            f"{model['kl']['value']:.2f}" if model["kl"] else "–",
            f"{model['tokens']['value']:.1f}",
            f"{100 * model['finished']['value']:.0f} %",
            f"{100 * model['distinct']:.0f} %",
        ]
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def _reward_on_votes(run: Run) -> dict[str, Any] | None:
    """The reward run's own agreement with held-out votes, beside the length rule (reward/train.py)."""
    found = run.metrics.get("votes")
    return {key: found[key] for key in ("scores", "longer", "pairs")} if found else None


def _shown(prompts: HeldOut, judged: Sequence[Judged]) -> list[report.Shown]:
    return [
        report.Shown(
            messages,
            {
                model.name: [
                    report.Answer(
                        text,
                        int(model.tokens[p, s]),
                        bool(model.finished[p, s]),
                        {judge: float(scores[p, s]) for judge, scores in model.scores.items()},
                    )
                    for s, text in enumerate(model.texts[p])
                ]
                for model in judged
            },
        )
        for p, messages in enumerate(prompts.messages[: report.FIRST + report.MORE])
    ]


def _said(chosen: Plan, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as they came out: what was chosen for a reader who left it open."""
    chosen_here = {
        "models": ", ".join(chosen.models),
        "baseline": chosen.baseline,
        "judges": ", ".join(judge.label for judge in chosen.judges),
    }
    left_out = {"project", "recipe", "models", "baseline", "reward", "taste", "device", "dtype"}
    return chosen_here | {k: v for k, v in settings.items() if k not in left_out and v is not None}


def _newest_first(chosen: Plan, parents: Sequence[str]) -> list[str]:
    """The tuned model first, the judge last."""
    return sorted(parents, key=lambda ref: -chosen.models.index(ref) if ref in chosen.models else 1)


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
