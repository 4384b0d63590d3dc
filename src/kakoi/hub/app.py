"""The hub as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from kakoi.core.errors import Fatal, KakoiError
from kakoi.hub.api import Api
from kakoi.hub.gate import Gate
from kakoi.hub.http import Perimeter, error_answer, http_error
from kakoi.hub.hub import Hub, open_hub, wall_clock
from kakoi.hub.settings import Settings


def create_app(
    settings: Settings, *, now: Callable[[], int] = wall_clock, on_fatal: Callable[[Fatal], None] = lambda _: None
) -> FastAPI:
    """The application of a hub, which it opens at once: errors in the settings or in what is on disk are raised here.

    ``on_fatal`` hears of contradictions that come up later; the hub should then be stopped.
    """
    return app_of(open_hub(settings, now=now), on_fatal)


def app_of(
    hub: Hub,
    on_fatal: Callable[[Fatal], None],
    on_refused: Callable[[KakoiError, str], None] = lambda error, address: None,
) -> FastAPI:
    """The application of an open hub, which it closes at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        hub.start()
        try:
            yield
        finally:
            await hub.close()

    app = FastAPI(title="Kakoi hub", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    Api(hub).add_to(app)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_middleware(
        Gate, authenticator=hub.authenticator, budgets=hub.budgets, policies=hub.policies
    )  # inside the perimeter, which is added after it
    head_bytes = hub.settings.limits.head_bytes
    app.add_middleware(
        Perimeter,
        requests=hub.requests,
        budgets=hub.budgets,
        tickets=hub.tickets,
        gauge=hub.gauge,
        head_bytes=head_bytes,
        allow=hub.settings.allow,
        not_warned_of=hub.warned.require_address,
        on_fatal=on_fatal,
        on_refused=on_refused,
    )
    app.state.hub = hub
    return app


async def _framework_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return error_answer(http_error(error))
