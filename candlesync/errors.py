"""The errors of candlesync.

``CandlesyncError``
  ├─ ``UnknownSymbol``          Binance does not list the symbol
  ├─ ``UnknownInterval``        the venue has no candles of the interval
  ├─ ``UpstreamUnavailable``    Binance did not answer usably; carries how long to wait before asking again
  │    ├─ ``RateLimited``       429 or 418: nobody in this process may ask before ``retry_after`` seconds have passed
  │    ├─ ``LocationRefused``   451: Binance does not serve this location
  │    └─ ``UnreadableAnswer``  an answer that is not what Binance documents: void as a whole
  ├─ ``UnreadableFrame``        a stream frame that is not what Binance documents
  ├─ ``TooMany``                a limit of this server was reached
  ├─ ``Leased``                 another node owns the symbol
  ├─ ``FeedError``              what a candlesync server refused its client, or why its answer was of no use
  ├─ ``StoreUnavailable``       the store did not answer usably: what it was asked to do may have happened, or not
  └─ ``CommitRefused``          the store refused a commit and changed nothing
       ├─ ``RevisionConflict``  the series is not at the life and revision that the commit was made for
       ├─ ``NotContinuous``     the commit would break invariant 1 or 3
       └─ ``Fenced``            the fencing token is not the current one
"""

from __future__ import annotations


class CandlesyncError(Exception):
    """Base of all errors that candlesync raises on purpose."""


class UnknownSymbol(CandlesyncError):
    """Binance does not list this symbol."""


class UnknownInterval(CandlesyncError):
    """The venue has no candles of this interval; the message says which it has."""


class UpstreamUnavailable(CandlesyncError):
    """Binance could not be asked, or did not answer usably."""

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds before which asking again is useless; 0 when nothing is known."""


class RateLimited(UpstreamUnavailable):
    """Binance answered 429 or 418, or the request weight of this minute is used up."""


class LocationRefused(UpstreamUnavailable):
    """Binance answered 451: it does not serve the location of this machine."""


class UnreadableAnswer(UpstreamUnavailable):
    """A REST answer is not what Binance documents. It is void as a whole: a bad row must never become a hole."""


class UnreadableFrame(CandlesyncError):
    """A stream frame is not what Binance documents."""


class TooMany(CandlesyncError):
    """A limit of this server was reached; the message says which."""

    def __init__(self, message: str, *, retry_after: float = 60.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds after which asking again makes sense."""


class Leased(CandlesyncError):
    """Another node owns the symbol, and its lease has not ended."""

    def __init__(self, symbol: str, owner: str, seconds: float) -> None:
        super().__init__(f"{symbol} is owned by node {owner} for {seconds:.1f} s more, unless it renews its lease")
        self.owner = owner
        """The node's identity."""
        self.seconds = seconds
        """Until the lease ends, unless it is renewed or released before."""


class StoreUnavailable(CandlesyncError):
    """The store could not be asked, or did not answer usably; the message says which store and why.

    What it was asked to do may have happened or not, unless the message says more: whoever wants to know reads the
    series. Nothing that may have happened is tried again before that.
    """


class CommitRefused(CandlesyncError):
    """The store refused a commit; nothing was changed."""


class RevisionConflict(CommitRefused):
    """The series in the store is not at the life and revision that the commit was made for: read it again."""


class NotContinuous(CommitRefused):
    """The commit would leave a gap, a forming candle that is not the last, or a closed candle forming again."""


class Fenced(CommitRefused):
    """The commit's fencing token is not the symbol's current one: somebody else owns the symbol now."""


class FeedError(CandlesyncError):
    """What a candlesync server refused its client, or why its answer was of no use. A feed that raises it has ended."""

    def __init__(self, code: str, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        """The server's, such as ``unknown_symbol``; or ``no_answer``, ``bad_answer``, ``hole``."""
        self.retry_after = retry_after
        """Seconds before which asking again is useless; 0 when nothing is known."""
