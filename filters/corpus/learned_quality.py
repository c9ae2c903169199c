"""The learned quality filter: documents that a trained model scores too low are dropped."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from compactds.filters.corpus.base import Drop, Record
from compactds.filters.corpus.options import option
from compactds.filters.corpus.quality_model import Encode, QualityModel, load_quality_model


@dataclass(frozen=True)
class LearnedQuality:
    """Drop what a model, trained on your examples of good and of unwanted text, scores low."""

    model: Path = option(about="The folder of the trained model.")  # noqa: RUF009
    keep: float | None = option(
        None,
        about="The share to keep of the texts the threshold was set on; as trained if left out.",
        minimum=0,
        maximum=1,
    )
    threshold: float | None = option(None, about="The least score, instead of keep.", minimum=0, maximum=1)
    name: str = option("learned_quality", about="What the ledger calls the filter.")
    encode: Encode | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self._loaded  # noqa: B018  # a model that cannot be read is refused at once

    @cached_property
    def _loaded(self) -> QualityModel:
        return load_quality_model(self.model)

    @cached_property
    def _least(self) -> float:
        if self.threshold is not None:
            return self.threshold
        return self._loaded.threshold if self.keep is None else self._loaded.threshold_for(self.keep)

    def judge(self, document: Record) -> Drop | None:
        """Return the score if it is too low."""
        score = self._loaded.score(document.text, self.encode)
        return Drop(self.name, "low_quality", score, self._least) if score < self._least else None
