"""``candlesync.asgi:app``: the application for ``hypercorn -c hypercorn.toml candlesync.asgi:app``.

Settings come from the environment (``CANDLESYNC_SYMBOLS`` and the others that ``candlesync serve --help`` names). The
service runs in the lifespan: Hypercorn starts it before it serves, and ends when it fails.
"""

from __future__ import annotations

import os

import click
import structlog
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, LifespanScope, Scope

from candlesync import log
from candlesync.backfill import report_backfill
from candlesync.config import Settings
from candlesync.edge.collector import relax
from candlesync.edge.server import WORKERS, install
from candlesync.edge.workers import replace_dead
from candlesync.options import settings_from_environment
from candlesync.server import prepare_edge
from candlesync.service import Service

_log = structlog.get_logger(__name__)


class Application:
    """The ASGI application: the service's, with the service running as long as the lifespan lasts.

    Importing it reads no environment and opens nothing; its lifespan does.
    """

    def __init__(self) -> None:
        self._service: Service | None = None
        settings = Settings()
        # In Hypercorn's first process only the import happens; in a worker this changes nothing.
        replace_dead(_report_dead)
        # Before the lifespan: Hypercorn looks for its classes when a worker starts.
        install(send_timeout=settings.send_timeout, grace=settings.grace, on_termination=self._stop)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """See the ASGI specification."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._service is None:
            raise RuntimeError("the server does not support the ASGI lifespan, in which the service runs")
        else:
            await self._service.app(scope, receive, send)

    async def _live(self, scope: LifespanScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        refusal = ""
        try:
            level, form, settings = settings_from_environment()
        except click.UsageError as error:
            refusal = error.format_message()
        if refusal:  # not in the block above: Hypercorn's error would be told with ours and all of click's
            await send({"type": "lifespan.startup.failed", "message": refusal})
            return
        log.configure(level, form)
        relax()
        if settings.store is None and scope["state"].get(WORKERS, 1) > 1:
            _log.warning("several workers with the memory store: each has its own feed and its own life of a series")
        self._service = Service(settings)
        prepare_edge(self._service, self._stop)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._service.run)
                nursery.start_soon(report_backfill, len(settings.pinned), self._service.supervisor.not_ready, None)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._stop()
                nursery.cancel_scope.cancel()
        except Exception as error:
            _log.error("the service failed", exc_info=error)
            # Hypercorn would go on serving after an ordinary error here. This one ends the worker, with an error.
            await send({"type": "lifespan.shutdown.failed", "message": f"the service failed: {error!r}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    def _stop(self) -> None:
        if self._service is not None:
            self._service.stop()


def _report_dead(status: int, seconds: float) -> None:
    log.configure(
        form=os.environ.get("CANDLESYNC_LOG_FORMAT", "auto")
    )  # of Hypercorn's first process, which runs no lifespan
    _log.error("a worker died and is replaced", status=status, seconds=round(seconds, 1))


app = Application()
