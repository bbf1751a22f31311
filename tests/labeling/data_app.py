"""The data routes with the guard and the people of the real app, without its pages; and any app over real HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from palate.data.facts import Facts
from palate.data.records import AnnotatorRole
from palate.data.store import Store
from palate.labeling.api import add_api
from palate.labeling.api_data import add_data
from palate.labeling.api_records import add_records
from palate.labeling.api_rules import add_rules
from palate.labeling.api_runs import add_runs
from palate.labeling.api_views import add_views
from palate.labeling.desk import Desk
from palate.labeling.login import Door, Refused, refuse
from palate.labeling.people import People


def data_app(store: Store, folder: Path, desk: Desk, facts: Facts | None = None) -> FastAPI:
    """The app; `folder` is the project's. With `facts` it has views of the votes as well."""
    people = People(store)
    app = FastAPI(openapi_url=None)

    @app.exception_handler(Refused)
    def refused(_: Any, error: Refused) -> Any:
        return refuse(error.status, error.code, error.message)

    @app.get("/api/v1/me", include_in_schema=False)
    def me() -> dict[str, str]:
        return {"name": "somebody"}

    add_data(app, store, desk)
    add_records(app, store, desk)
    add_runs(app, store, folder)
    add_rules(app, store, desk)
    if facts is not None:
        add_views(app, store, lambda _, make: (facts.refresh(), make(facts))[1])
    add_api(app)
    app.add_middleware(Door, people=people, hosts=["localhost", "127.0.0.1"])
    app.state.people, app.state.desk = people, desk
    return app


def token(app: FastAPI, role: AnnotatorRole = "lead") -> str:
    """A token of somebody with this role."""
    people: People = app.state.people
    account = people.find(role)
    person = account.person if account else people.create(role, role)
    return people.make_token(person.id, "test")[0]


@contextmanager
def serving(app: FastAPI, port: int = 0, **settings: Any) -> Iterator[str]:
    """The app on a port of this machine, in a thread; gives its address."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=port, log_level="critical", timeout_graceful_shutdown=1, **settings
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        threading.Event().wait(0.01)
    try:
        scheme = "https" if settings.get("ssl_certfile") else "http"
        yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
