"""`palate label`: the browser app. One process, one owner of the database while it runs.

People log in (`login_pages.py`), a guard stands in front of every route (`login.py`). On localhost it needs no
set-up: the address it prints is a one-time link for whoever started it. For others on the network put it behind
a proxy with TLS (docs/deployment.md).

    palate label --annotator anna
"""

import asyncio
import gc
import os
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware

from palate.config import LabelConfig, UserError
from palate.data.address import publish, withdraw
from palate.data.backup import folder_of as backups_of
from palate.data.journal import Journal
from palate.data.recovery import open_store
from palate.data.store import Store
from palate.labeling import guidelines, strings
from palate.labeling.api import add_api
from palate.labeling.api_data import add_data
from palate.labeling.api_live import add_live
from palate.labeling.api_people import add_people_api
from palate.labeling.api_rank import add_ranking
from palate.labeling.api_records import add_records
from palate.labeling.api_rules import add_rules
from palate.labeling.api_runs import add_runs
from palate.labeling.api_selection import add_selection
from palate.labeling.api_statistics import add_statistics
from palate.labeling.api_views import add_views, asking
from palate.labeling.backup_routes import add_backups
from palate.labeling.ballots import Rules
from palate.labeling.desk import Desk
from palate.labeling.first_paint import FirstPaint
from palate.labeling.guidelines_page import add_guidelines
from palate.labeling.invitations import Invitations
from palate.labeling.journaling import VoteJournal
from palate.labeling.login import Door, clean_root, cookie_name, hosts_of, networks
from palate.labeling.login_pages import Entrance, StartLink, add_login
from palate.labeling.opening import Plan
from palate.labeling.operations import add_operations, add_stopwatch
from palate.labeling.people import People
from palate.labeling.people_pages import add_people
from palate.labeling.review import add_review
from palate.labeling.review_service import Review
from palate.labeling.screen import ranking_screen, script, style
from palate.labeling.selection.learner import Settings
from palate.labeling.selection.selector import Selector, check_selection
from palate.labeling.webhooks import add_webhooks
from palate.project import Project

PORTS_TRIED = 50
SWITCH = 0.0005  # seconds after which a thread that computes lets one that answers go on; Python's default is ten times that
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def run(project: Project, config: LabelConfig) -> None:
    """Serve until Ctrl-C; the URL is printed, and opened when a desktop is there."""
    # what this process writes is its owner's alone: votes, hashes of passwords, backups, exports
    os.umask(0o077)
    store = project.own_store(partial(open_store, say=print))
    project.database.chmod(0o600)
    try:
        app = make_app(store, project, config)
        listener = _listen(config.host, config.port)
        port = listener.getsockname()[1]
        publish(project.folder, _local_url(config.host, port), app.state.people.lend())
        shown = "localhost" if config.host in ("127.0.0.1", "::1", "0.0.0.0", "::") else config.host
        link: StartLink | None = app.state.entrance.start
        url = f"http://{shown}:{port}{clean_root(config.root_path)}{link.path if link else '/'}"
        waiting = store.value("SELECT count(*) FROM comparison WHERE purpose IN ('train', 'random')")
        votes = store.value("SELECT count(*) FROM vote")
        print(f"takes:  {waiting} comparisons and {votes} votes in {project.database}")
        if config.port not in (0, port):
            print(f"        port {config.port} is taken, using {port}")
        if config.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"        listening on {config.host}: put it behind a proxy with TLS, see docs/deployment.md"
            )
        note = "this link logs you in, once; " if link else ""
        print(f"open:   {url}     ({note}Ctrl-C ends it; votes are saved one by one)", flush=True)
        if config.browser and _desktop():
            Timer(1.0, webbrowser.open, [url]).start()
        sys.setswitchinterval(SWITCH)
        gc.collect()  # event loops that Gradio made and dropped keep their files open till then
        gc.freeze()  # what is loaded now stays to the end: no pauses to look through it, and a quick exit
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, proxy_headers=False)
        )
        with suppress(KeyboardInterrupt):  # uvicorn has shut down and passes the signal on
            server.run(sockets=[listener])
    finally:
        store.close()
        withdraw(project.folder)
    print("\nclosed. next:   palate stats, then palate reward")


def make_app(store: Store, project: Project, config: LabelConfig) -> FastAPI:
    """The whole web app on an open store."""
    for variable in ("GRADIO_VIBE_MODE", "GRADIO_SHARE", "GRADIO_MCP_SERVER", "GRADIO_SSR_MODE"):
        os.environ.pop(variable, None)  # each opens a door that this server keeps shut
    root = clean_root(config.root_path)
    networks(config.proxies)  # a wrong one is said now, not at the first request
    people = People(store, cookie_name(project.folder))
    start = StartLink(config.annotator) if config.annotator or not people.admin_with_password() else None

    journal = Journal(project.folder / "votes.journal")
    desk = Desk(store, *_rules(config), VoteJournal(journal, store), selector=_selector(store, config))
    if config.guidelines is not None:
        guidelines.from_file(store, _read(config.guidelines))

    review = Review(store, (config.overlap, config.overlap_share))
    if desk.selector is not None:
        desk.on_votes.append(desk.selector.heard)
        review.notice = desk.selector.notice

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        review.warm_up(app.state.finder.warm_up)
        if desk.selector is not None:
            desk.selector.start()
        yield
        withdraw(project.folder)
        for close in (
            keeper.close,
            review.close,
            *([desk.selector.close] if desk.selector is not None else []),
            desk.close,
            webhooks.close,
            journal.close,
            store.close,
        ):  # also on SIGTERM, which ends the process right after
            await asyncio.to_thread(close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = desk
    app.state.people, app.state.entrance = (
        people,
        Entrance(
            people, project.name, Invitations(people), root, start, language=strings.checked(config.language)
        ),
    )

    registry = add_operations(app, store, desk)

    add_login(app, app.state.entrance)
    add_live(app, store, project, config)
    about = {
        "project": project.name,
        "language": config.language,
        "criteria": config.criteria,
        "partial": config.partial,
        "live": bool(app.state.live.endpoints),
    }
    add_ranking(app, store, desk, about)
    add_guidelines(app, store, app.state.entrance)
    add_people(app, app.state.entrance)
    add_people_api(app, app.state.entrance)
    add_review(app, store, desk, review, app.state.entrance)
    add_statistics(app, review)
    add_views(app, store, asking(review), review.forget)
    add_data(app, store, desk)
    add_records(app, store, desk)
    add_runs(app, store, project.folder)
    add_rules(app, store, desk)
    add_selection(app, desk)
    webhooks = add_webhooks(app, store, desk, config)
    keeper = add_backups(app, store, backups_of(store.path), config.backup_minutes)
    add_api(app)  # after the others: it answers what they do not know
    shut: dict[str, Any] = {
        "show_error": False,
        "run_history": False,
        "footer_links": [],
        "allowed_paths": [],
        "blocked_paths": [str(project.folder)],
        "max_file_size": 1,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None},
        "theme": THEME,
        "auth_dependency": _id,
    }
    looks = f"<style>\n{style()}\n</style>"  # in the head: what goes in as `css` is confined to Gradio's container
    screen = ranking_screen()
    gr.mount_gradio_app(
        app, screen, "/", head=looks + script(config.language), root_path=root or None, **shut
    )
    # the last one added is the outermost
    app.add_middleware(FirstPaint)
    app.add_middleware(CORSMiddleware, allow_origins=[])
    hosts = hosts_of(config.host, config.trusted_hosts)
    app.add_middleware(Door, people=people, hosts=hosts, proxies=config.proxies, root=root)
    add_stopwatch(app, registry, root)
    return app


def _rules(config: LabelConfig) -> tuple[Rules, Plan]:
    """What ballots may hold and how work is handed out, as set; a nonsensical setting is a UserError."""
    for flag, value, low, high in (
        ("overlap", config.overlap, 1, 1000),
        ("overlap-share", config.overlap_share, 0, 1),
        ("repeat-share", config.repeat_share, 0, 0.5),
        ("gold-share", config.gold_share, 0, 0.5),
        ("lease-minutes", config.lease_minutes, 0.01, 1440),
    ):
        if not low <= value <= high:
            raise UserError(f"--{flag} takes {low} to {high}, got {value}")
    plan = Plan(
        config.overlap,
        config.overlap_share,
        config.lease_minutes * 60,
        config.repeat_share,
        config.gold_share,
    )
    return Rules(config.partial, config.criteria), plan


def _selector(store: Store, config: LabelConfig) -> Selector | None:
    """Who chooses comparisons, as set; None where they come by chance."""
    check_selection(config.select, config.random_share, config.diversity)
    if config.select == "random":
        return None
    return Selector(store, Settings(config.select, config.random_share, config.control, config.diversity))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--guidelines {file} can't be read: {error}") from error


def _id(request: Request) -> str | None:
    """The annotator's id of a request to a Gradio page, as the guard has found it."""
    person = request.scope["state"]["person"]
    return person.id if person else None


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket on `port` or the next free one; held, so that nobody takes it in between."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in range(port, port + PORTS_TRIED):
        listener = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would share a taken port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            return listener
        except OverflowError as error:
            raise UserError(f"--port must be below 65536, got {number}") from error
        except socket.gaierror as error:
            raise UserError(f"--host {host} is not an address of this machine: {error}") from error
        except PermissionError as error:
            raise UserError(f"port {number} needs more rights; choose one above 1024") from error
        except OSError:
            listener.close()
    raise UserError(f"no free port from {port} to {port + PORTS_TRIED - 1} on {host}; choose one with --port")


def _local_url(host: str, port: int) -> str:
    """Where commands on this machine find the server."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _desktop() -> bool:
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
