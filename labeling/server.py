"""`palate label`: the browser app. One process, one owner of the database while it runs.

Not a public web server: names are asked for, not proven. A signed cookie says who is voting, requests from
other sites are refused, and Gradio's routes that read, write or fetch files are closed. Bind it to localhost
or to a network where everyone may vote.

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
from threading import Timer
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import duckdb
import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, RedirectResponse

from palate.config import LabelConfig, UserError
from palate.data.store import Store
from palate.labeling import voting
from palate.labeling.login import Door, add_login
from palate.labeling.screen import ranking_screen, script, style
from palate.labeling.statistics_page import statistics_page
from palate.project import Project

PORTS_TRIED = 50
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def run(project: Project, config: LabelConfig) -> None:
    """Serve until Ctrl-C; the URL is printed, and opened when a desktop is there."""
    store = project.store()
    try:
        app = make_app(store, project, config)
        listener = _listen(config.host, config.port)
        port = listener.getsockname()[1]
        shown = "localhost" if config.host in ("127.0.0.1", "::1", "0.0.0.0", "::") else config.host
        url = f"http://{shown}:{port}/"
        waiting = store.value("SELECT count(*) FROM comparison WHERE purpose IN ('train', 'random')")
        votes = store.value("SELECT count(*) FROM vote")
        print(f"takes:  {waiting} comparisons and {votes} votes in {project.database}")
        if config.port not in (0, port):
            print(f"        port {config.port} is taken, using {port}")
        if config.host not in ("127.0.0.1", "::1", "localhost"):
            print(
                f"        listening on {config.host}: everyone who can reach this machine can vote under any name"
            )
        print(f"open:   {url}     (Ctrl-C ends it; votes are saved one by one)", flush=True)
        if config.browser and _desktop():
            Timer(1.0, webbrowser.open, [url]).start()
        gc.freeze()  # what is loaded now stays to the end: no pauses to look through it, and a quick exit
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, proxy_headers=False)
        )
        with suppress(KeyboardInterrupt):  # uvicorn has shut down and passes the signal on
            server.run(sockets=[listener])
    finally:
        store.close()
    print("\nclosed. next:   palate stats, then palate reward")


def make_app(store: Store, project: Project, config: LabelConfig) -> FastAPI:
    """The whole web app on an open store."""
    for variable in ("GRADIO_VIBE_MODE", "GRADIO_SHARE", "GRADIO_MCP_SERVER", "GRADIO_SSR_MODE"):
        os.environ.pop(variable, None)  # each opens a door that this server keeps shut
    default = voting.annotator(store, config.annotator).id if config.annotator else None
    door = Door(project.folder, store, default)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(store.close)  # also on SIGTERM, which ends the process right after

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        try:
            votes = store.value("SELECT count(*) FROM vote")
        except duckdb.Error:
            return JSONResponse({"status": "no database"}, 503)
        return JSONResponse({"status": "ok", "votes": votes})

    @app.get("/statistics")
    def statistics() -> RedirectResponse:
        return RedirectResponse("/statistics/")

    add_login(app, store, project.name, door)
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
        "auth_dependency": door.person,
    }
    looks = f"<style>\n{style()}\n</style>"  # in the head: what goes in as `css` is confined to Gradio's container
    gr.mount_gradio_app(app, statistics_page(store, project.name), "/statistics", head=looks, **shut)
    screen = ranking_screen(store, project.name, _who)
    gr.mount_gradio_app(app, screen, "/", head=looks + script(), **shut)
    # the last one added is the outermost
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.middleware("http")(door.guard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=_hosts(config.host))
    return app


def _who(request: gr.Request) -> str:
    """The annotator of a Gradio event: what `auth_dependency` found in the signed cookie."""
    person = request.username
    if not person:
        raise UserError("nobody is logged in; reload the page")
    return str(person)


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


def _hosts(host: str) -> list[str]:
    """The Host headers that are answered: anything else is a page of another site pointing here."""
    names = ["localhost", "127.0.0.1", host]
    if host in ("0.0.0.0", "::"):
        name = socket.gethostname()
        names += [name, f"{name}.local"]
        with suppress(socket.gaierror):
            names += [str(info[4][0]) for info in socket.getaddrinfo(name, None)]
    return names


def _desktop() -> bool:
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
