"""What can go wrong on a connection.

The names are those of httpx and httpcore: exceptions of any transport are recognized by name. They are classes of our
own so that a plain connection needs neither package.
"""


class NetworkError(Exception):
    """The connection failed."""


class ConnectError(NetworkError):
    """No connection came about."""


class ReadError(NetworkError):
    """The connection broke while bytes were expected."""


class WriteError(NetworkError):
    """The connection broke while bytes were sent."""


class TimeoutException(Exception):  # noqa: N818 - the name is known
    """A wait took too long."""


class ConnectTimeout(TimeoutException):
    """The connection did not open in time."""


class ReadTimeout(TimeoutException):
    """No bytes arrived in time."""


class WriteTimeout(TimeoutException):
    """The other side did not take the bytes in time."""


class PoolTimeout(TimeoutException):
    """No connection became free in time."""


class ProtocolError(Exception):
    """One side does not keep to the protocol."""


class LocalProtocolError(ProtocolError):
    """What was to be sent is not a valid request."""


class RemoteProtocolError(ProtocolError):
    """What arrived is not a valid response."""


class ProxyError(Exception):
    """The proxy opened no connection to the server."""
