"""`compactds doctor`."""


def doctor() -> None:
    """Say doctor."""
