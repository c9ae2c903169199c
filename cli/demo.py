"""`compactds demo`."""


def demo() -> None:
    """Say demo."""
