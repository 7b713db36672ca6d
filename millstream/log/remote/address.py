"""Where a served log is: `grpc://host:port`, or `grpc+tls://host:port`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from millstream.errors import OptionError

SCHEMES = ("grpc", "grpc+tls")
PORT_DEFAULT = 8815
"""That of Arrow's own examples of Flight."""


def is_address(path: str) -> bool:
    """Return `True` iff `path` names a served log, well or badly, and not a directory."""
    return "://" in path


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of an address."""

    host: str
    port: int
    is_encrypted: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return the parts of `text`; raises `OptionError` where it is no address."""
        scheme = text.partition("://")[0]
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        is_bare = host is not None and not (
            parts.path.strip("/") or parts.query or parts.fragment or parts.username
        )
        if scheme not in SCHEMES or host is None or not is_bare:
            message = (
                f"{text!r} is no address of a log; write grpc://host:port or grpc+tls://host:port, "
                "or the path of a directory"
            )
            raise OptionError(message)
        return cls(host, PORT_DEFAULT if port is None else port, scheme == "grpc+tls")

    def __str__(self) -> str:
        scheme = SCHEMES[self.is_encrypted]
        return f"{scheme}://{_in_address(self.host)}:{self.port}"

    @property
    def flight_location(self) -> str:
        """The address as Flight writes it."""
        scheme = "grpc+tls" if self.is_encrypted else "grpc+tcp"
        return f"{scheme}://{_in_address(self.host)}:{self.port}"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
