"""Settings of conf/loss."""

from dataclasses import dataclass
from enum import Enum

from nemo_reasoning.config import checks


class LossKind(Enum):
    """What is minimised."""

    supervised = "supervised"
    dpo = "dpo"


@dataclass
class LossSettings:
    """conf/loss."""

    kind: LossKind
    beta: float | None

    @property
    def pairs(self) -> bool:
        """Whether rows are pairs of a preferred and a rejected answer."""
        return self.kind is LossKind.dpo

    @property
    def rows_each(self) -> int:
        """Rows of a token store that make one of a batch."""
        return 2 if self.pairs else 1

    def problems(self) -> list[str]:
        """Return what has no meaning, each with its remedy."""
        if self.pairs == (self.beta is not None):
            return checks.positive({"loss.beta": self.beta})
        return [f"loss.beta={self.beta} with loss={self.kind.value}: choose loss=dpo and a number, or leave both out"]
