"""Whose certificates are trusted."""

from __future__ import annotations

import ssl

from memory_core.errors import ConfigurationError


def tls_context(ca_file: str | None) -> ssl.SSLContext | bool:
    """How servers are verified, as aiohttp takes it.

    Args:
        ca_file: A file of PEM certificates that are trusted instead of the system's.

    Raises:
        ConfigurationError: It holds none, or cannot be read.
    """
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # what ssl raises is one as well
        msg = f"ca_file: {ca_file} holds no certificates that can be read: {error}"
        raise ConfigurationError(msg) from error
