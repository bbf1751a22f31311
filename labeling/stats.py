"""`palate stats`: what the votes say, as text, as JSON or as one HTML file.

    palate stats                              every section, with its question, answer, figures and tables
    palate stats --section models --kind model
    palate stats --html review.html           with plots; opens anywhere, prints on paper

A running `palate label` owns the database; then the server is asked, which has the same figures.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from io import TextIOWrapper
from urllib.parse import urlencode

from palate.config import StatsConfig, UserError
from palate.data.any_store import AnyStore
from palate.data.facts import Facts
from palate.data.remote import RemoteStore
from palate.data.store import Store, now
from palate.labeling.statistics import report
from palate.labeling.statistics.panels import Section
from palate.labeling.statistics.plain import as_plain, sections_of
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.terminal import section_text
from palate.project import Project


def run(project: Project, config: StatsConfig) -> None:
    """Print the sections, or write them to a file."""
    scope = report.scope_of(
        {name: asdict(config)[name] for name in ("kind", "source", "tag", "since", "until")}
    )
    wanted = [config.section] if config.section else list(report.MODULES)
    with project.store() as store:
        found = sections(store, scope, wanted)
        if config.json:
            print(json.dumps(as_plain(scope, list(found)), indent=2, ensure_ascii=False, allow_nan=False))
        elif config.html is not None:
            _write(project, config, scope, list(found))
        else:
            _print(project, scope, found)


def sections(store: AnyStore, scope: Scope, wanted: Sequence[str]) -> Iterator[Section]:
    """The sections one after the other, each whole."""
    if isinstance(store, RemoteStore):
        for id in wanted:
            asked = urlencode(report.asked_of(scope) | {"section": id})
            yield from sections_of(store.get(f"/statistics?{asked}"))
        return
    assert isinstance(store, Store)
    with Facts(store) as facts:
        facts.refresh(_progress if sys.stderr.isatty() else None)
        report.check_scope(facts, scope)
        for id in wanted:
            yield report.whole(facts, scope, id)


def _progress(done: int, total: int) -> None:
    if total > 200_000:
        print(
            f"\rreading the votes: {done:,} of {total:,}",
            end="" if done < total else "\r\x1b[K",
            file=sys.stderr,
        )


def _print(project: Project, scope: Scope, found: Iterator[Section]) -> None:
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if isinstance(sys.stdout, TextIOWrapper):
        with suppress(ValueError):
            sys.stdout.reconfigure(errors="replace")  # names may hold what an old terminal can't show
    print(f"{project.name}: {report.scope_text(scope)}")
    for one in found:
        print(f"\n\n{section_text(one, colours)}", flush=True)
    print("\nwith plots: palate stats --html review.html; for scripts: palate stats --json")


def _write(project: Project, config: StatsConfig, scope: Scope, found: list[Section]) -> None:
    from palate.labeling.review_html import static_page  # here, since plots take a while to load

    assert config.html is not None
    if config.html.is_dir():
        raise UserError(f"--html takes a file to write, {config.html} is a folder")
    config.html.parent.mkdir(parents=True, exist_ok=True)
    config.html.write_text(static_page(project.name, scope, found, now()), encoding="utf-8")
    print(
        f"wrote {config.html}: {sum(len(one.panels) for one in found)} questions, {config.html.stat().st_size:,} bytes"
    )
