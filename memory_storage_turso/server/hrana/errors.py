"""Failures of a request to a server, distinguished by what they mean for a write.

None of these crosses the driver: it maps them to the framework's errors.
"""

from __future__ import annotations


class HranaError(Exception):
    """Base class of the failures of a request."""


class NotReachedError(HranaError):
    """The server was not reached; nothing was sent."""


class StreamLostError(HranaError):
    """The server no longer knows the stream; the request was not executed."""


class RefusedError(HranaError):
    """The server answered that it did not execute the request.

    Attributes:
        status: HTTP status, or 0 where there is none.
        code: The server's name for the error, or "".
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code or f'HTTP {status}'}: {message}")
        self.status = status
        self.code = code
        self.message = message


class NotTrustedError(RefusedError):
    """The server's certificate is not trusted; nothing was sent to it."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "CERTIFICATE", message)


class NoAnswerError(HranaError):
    """The request was sent, and no usable answer came back: it may have been executed."""


class ResponseTooLargeError(HranaError):
    """The answer is larger than the server sends, or than the client reads, in one piece."""
