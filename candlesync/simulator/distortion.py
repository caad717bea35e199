"""What faults do to the frames on their way: which are sent, how often, and how late."""

from __future__ import annotations

from collections.abc import Iterator

from candlesync.simulator.faults import DelayedClose, Duplicates, FaultPlan, Garbage, Late, Missing, Silent
from candlesync.simulator.frames import Frame, GarbagePress


class Distortion:
    """The faults of the stream, applied to each frame at two moments: when it arises, and when it is sent."""

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._press = GarbagePress()

    def deliveries(self, frame: Frame) -> Iterator[tuple[int, Frame]]:
        """What is sent when ``frame`` arises, and how many milliseconds of market time later."""
        plan, symbol = self._plan, frame.symbol
        if any(
            missing.stream and frame.open_time in missing.open_times and missing.interval in (None, frame.interval)
            for missing in plan.active(Missing, symbol)
        ):
            return
        delay = 0
        if frame.closed:
            delay = sum(
                fault.by_ms for fault in plan.active(DelayedClose, symbol) if fault.interval in (None, frame.interval)
            )
        garbage = plan.active(Garbage, symbol)
        for fault in garbage:
            yield delay, self._press.spoil(frame, fault.shape)
        if not any(fault.replace for fault in garbage):
            times = 1
            for duplicates in plan.active(Duplicates, symbol):
                times *= duplicates.times
            for _ in range(times):
                yield delay, frame
        for late in plan.active(Late, symbol):
            if late.which == "both" or (late.which == "closed") is frame.closed:
                yield delay + late.by_ms, frame

    def silenced(self, frame: Frame) -> bool:
        """Whether a frame that is due now is not sent."""
        return any(fault.stream in (None, frame.stream) for fault in self._plan.active(Silent, frame.symbol))
