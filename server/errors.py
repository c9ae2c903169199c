"""Errors of starting a server; CompactdsError draws the whole tree."""

from compactds.filters.errors import CompactdsError


class ServeError(CompactdsError):
    """Report a server that cannot start."""

    code = "cannot_serve"


class AddressError(ServeError):
    """Report an address that cannot be bound: unknown, not this machine's, or not permitted."""

    code = "invalid_address"


class PortInUseError(ServeError):
    """Report a port that another process listens on."""

    code = "port_in_use"


class KeyRequiredError(ServeError):
    """Refuse to listen beyond this machine without an API key."""

    code = "api_key_required"


class InvalidKeyError(ServeError):
    """Refuse an API key that a header cannot carry as it is; the key is not shown."""

    code = "invalid_api_key"
