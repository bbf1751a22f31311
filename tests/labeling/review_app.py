"""An app that has Review and the ways in, and nothing else: the ranking page takes a second to make."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from palate.data.store import Store
from palate.labeling.api_statistics import add_statistics
from palate.labeling.desk import Desk
from palate.labeling.invitations import Invitations
from palate.labeling.login import Door
from palate.labeling.login_pages import Entrance, add_login
from palate.labeling.people import People
from palate.labeling.review import add_review
from palate.labeling.review_service import Review
from palate.project import Project


def review_app(store: Store, project: Project, root: str = "") -> FastAPI:
    """The app; what it has opened is closed with it."""
    people, desk, review = People(store), Desk(store), Review(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        review.close()
        desk.close()

    app = FastAPI(lifespan=lifespan)
    entrance = Entrance(people, project.name, Invitations(people), root)
    add_login(app, entrance)
    add_review(app, store, desk, review, entrance)
    add_statistics(app, review)
    app.add_middleware(Door, people=people, hosts=["localhost", "127.0.0.1"], root=root)
    app.state.people = people
    return app
