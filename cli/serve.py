"""`compactds serve`."""


def serve() -> None:
    """Say serve."""
