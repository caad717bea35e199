"""The control calls, by which tests let things go wrong and learn what was so. Binance has nothing like them.

- ``POST /control/faults``: a fault or a list of them as JSON (see `candlesync.simulator.faults`); ``GET`` lists them,
  ``DELETE`` clears them.
- ``GET /control/state``: counters and the present.
- ``GET /control/connections``: how many connections asked for each symbol, and since when: ``now`` and a list of
  ``changes``, oldest first, each ``[time, symbol, connections]``. Times are seconds of the simulator's own clock.
- ``GET /control/truth?symbol=&interval=&startTime=&endTime=``: the final rows of closed candles, whatever is wrong.

They weigh nothing and no fault touches them.
"""

from __future__ import annotations

import msgspec
import trio
from quart import Blueprint, Response, request

from candlesync.simulator.exchange import Exchange
from candlesync.simulator.faults import Fault


def create_control(exchange: Exchange) -> Blueprint:
    """The control calls of ``exchange``."""
    control = Blueprint("control", __name__)

    @control.post("/control/faults")
    async def add_faults() -> Response:
        body = await request.get_data()
        try:
            faults = msgspec.json.decode(body, type=Fault | list[Fault])
        except msgspec.DecodeError as error:
            return _json({"error": str(error)}, 400)
        for fault in faults if isinstance(faults, list) else [faults]:
            exchange.add_fault(fault)
        return _json(exchange.faults(), 201)

    @control.get("/control/faults")
    async def list_faults() -> Response:
        return _json(exchange.faults())

    @control.delete("/control/faults")
    async def clear_faults() -> Response:
        exchange.clear_faults()
        return _json([])

    @control.get("/control/state")
    async def state() -> Response:
        return _json(exchange.state())

    @control.get("/control/connections")
    async def connections() -> Response:
        return _json({"now": trio.current_time(), "changes": list(exchange.tally.changes)})

    @control.get("/control/truth")
    async def truth() -> Response:
        asked = request.args
        try:
            rows = exchange.truth(
                asked["symbol"],
                asked.get("interval", "1m"),
                int(asked.get("startTime", 0)),
                int(asked.get("endTime", exchange.now())),
            )
        except (KeyError, ValueError) as error:
            return _json({"error": f"{type(error).__name__}: {error}"}, 400)
        return _json(rows)

    return control


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, {"Content-Type": "application/json"})
