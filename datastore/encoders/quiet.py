"""Keep the model libraries from drawing progress bars and logging load reports."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the model libraries' bars and warnings while a model loads, then restore what was set.

    Errors are still logged. The settings are global to the process: another thread that loads a model
    by itself meanwhile is silenced too.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with quiet_logger("sentence_transformers"):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_logger(name: str) -> Iterator[None]:
    """Let a library's logger pass errors only, then restore what was set."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
