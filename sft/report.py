"""What an SFT run did, for people: losses, how often answers end, samples side by side. Writes report.md."""

from collections.abc import Sequence

from palate.data.records import Message
from palate.generation import Sampled
from palate.runs import ActiveRun

SHOWN = 4


def write_report(
    active: ActiveRun,
    prompts: Sequence[Sequence[Message]],
    before: Sequence[Sampled],
    after: Sequence[Sampled],
) -> None:
    """report.md in the run's folder; `before` and `after` answer `prompts`, from the same seed."""
    figures = active.record.metrics
    lines = [
        f"# {active.id}",
        "",
        "| | before | after |",
        "|---|---|---|",
        _line("validation loss", figures["validation_loss_before"], figures["validation_loss"], "{:.4f}"),
        _line("answers that end by themselves", figures["stop_rate_before"], figures["stop_rate"], "{:.0%}"),
        "",
        f"{figures['rows']} rows, {figures['steps']} steps, {figures['trainable_weights']:,} trainable weights, "
        + f"last training loss {_shown(figures['train_loss'], '{:.4f}')}.",
        "",
    ]
    for prompt, old, new in list(zip(prompts, before, after, strict=True))[:SHOWN]:
        lines += ["## Prompt", "", _quoted("\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)), ""]
        for name, drawn in (("Before", old), ("After", new)):
            lines += [f"**{name}** ({_end(drawn)})", "", _quoted(drawn.text), ""]
    (active.path / "report.md").write_text("\n".join(lines), encoding="utf-8")


def _line(name: str, before: float | None, after: float | None, style: str) -> str:
    return f"| {name} | {_shown(before, style)} | {_shown(after, style)} |"


def _shown(value: float | None, style: str) -> str:
    return "-" if value is None else style.format(value)


def _end(drawn: Sampled) -> str:
    return f"{len(drawn.token_ids)} tokens, {'ended by itself' if drawn.finish_reason == 'stop' else 'cut'}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])
