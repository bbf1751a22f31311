"""What a reward run found, as figures for its record, lines for the terminal and a short report."""

from dataclasses import dataclass
from typing import Any

from palate.reward.accuracy import Accuracy


@dataclass(frozen=True)
class Findings:
    """How a reward model was made and how far to trust it. Accuracies are None where no vote decides a pair."""

    base: str
    trained_on: int  # rankings
    held_out: int  # rankings
    held_out_by: str
    loss: tuple[float, float]  # first and last step
    votes: Accuracy | None  # against each vote on held-out prompts
    majority: Accuracy | None  # against the majority of each pair's votes
    folds: Accuracy | None  # cross-validated, against each vote
    length_correlation: float | None  # of rewards with characters
    reload_error: float  # largest change of a reward by saving and loading

    def metrics(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        found = {"votes": self.votes, "majority": self.majority, "cross_validated": self.folds}
        return {
            "loss": self.loss[1],
            "rankings": self.trained_on,
            "held_out_rankings": self.held_out,
            "held_out_by": self.held_out_by,
            **{name: value.metrics() if value else None for name, value in found.items()},
            "length_correlation": self.length_correlation,
            "reload_error": self.reload_error,
        }

    def summary(self) -> str:
        """The figures for the terminal, accuracy beside its control."""
        lines = [
            f"  {self.trained_on} rankings to learn from, {self.held_out} held out by {self.held_out_by}",
            f"  loss {self.loss[0]:.3f} -> {self.loss[1]:.3f}",
        ]
        for label, value in self._accuracies():
            lines.append(f"  accuracy against {label}: {value}")
        if self.votes and self.votes.difference.low <= 0:
            lines.append(
                "  warning: not surely better than length alone; collect more votes before trusting it"
            )
        if self.length_correlation is not None:
            lines.append(f"  correlation of reward and length: {self.length_correlation:+.2f}")
        return "\n".join(lines)

    def _accuracies(self) -> list[tuple[str, Accuracy | str]]:
        missing = "no decided pair on held-out prompts"
        found: list[tuple[str, Accuracy | str]] = [
            ("votes on held-out prompts", self.votes or missing),
            ("majorities on held-out prompts", self.majority or missing),
        ]
        return [*found, ("votes, cross-validated", self.folds)] if self.folds else found


def report(run_id: str, found: Findings) -> str:
    """Markdown, to be read on its own."""
    lines = [
        f"# Reward model {run_id}",
        "",
        f"On `{found.base}`: {found.trained_on} rankings to learn from, {found.held_out} held out by {found.held_out_by}.",
        "Ties and equal scores count by half. Brackets hold 95 % intervals over whole groups of prompts",
        "(or comparisons, where groups are few).",
        "",
        "| Accuracy against | Reward | The longer one wins | Difference | Pairs | Clusters |",
        "|---|---|---|---|---|---|",
    ]
    for label, value in found._accuracies():
        if isinstance(value, str):
            lines.append(f"| {label} | {value} | | | 0 | |")
        else:
            lines.append(
                f"| {label} | {value.scores} | {value.longer} | {value.difference} | {value.pairs} "
                f"| {value.clusters} {value.clustered_by} |"
            )
    correlation = "not defined" if found.length_correlation is None else f"{found.length_correlation:+.2f}"
    lines += [
        "",
        f"- Correlation of reward and length (characters): {correlation}",
        f"- Largest change of a reward by saving and loading: {found.reload_error:.1e}",
        f"- Training loss, first and last step: {found.loss[0]:.3f}, {found.loss[1]:.3f}",
        "- Rewards are scaled to mean 0 and standard deviation 1 over the training completions.",
        "",
    ]
    return "\n".join(lines)
