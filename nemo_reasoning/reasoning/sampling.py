"""How tokens are drawn from a model's probabilities."""

from dataclasses import dataclass
from math import inf


@dataclass(unsafe_hash=True)  # a settings class, which OmegaConf must be able to fill, and a default of requests
class Sampling:
    """How tokens are drawn; every default leaves the model's probabilities as they are, and takes the likeliest.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token each time.
        top_p: Sample among the likeliest tokens that together reach this probability (arXiv 1904.09751).
        top_k: Sample among this many likeliest tokens; 0 for all.
        min_p: Sample among tokens at least this share as likely as the likeliest (arXiv 2407.01082).
        repetition_penalty: Divides positive logits, and multiplies negative ones, of every token that stands in
            the prompt or the completion (arXiv 1909.05858).
        frequency_penalty: Subtracted from a token's logit for each time it stands in the completion.
        presence_penalty: Subtracted once from the logit of every token that stands in the completion.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    def problems(self) -> list[str]:
        """Return what is wrong with each value outside its range, with the remedy."""
        checks = {
            "temperature": (0 <= self.temperature < inf, "give 0 (the likeliest token each time) or more"),
            "top_p": (0 < self.top_p <= 1, "give a share above 0 and up to 1"),
            "top_k": (self.top_k >= 0, "give 1 or more, or 0 for all tokens"),
            "min_p": (0 <= self.min_p <= 1, "give a share from 0 to 1"),
            "repetition_penalty": (0.01 <= self.repetition_penalty <= 100, "give 0.01 to 100; 1 changes nothing"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "give a number from -2 to 2"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "give a number from -2 to 2"),
        }
        return [f"{name}={getattr(self, name)}; {remedy}" for name, (good, remedy) in checks.items() if not good]

    @property
    def penalizes(self) -> bool:
        """Whether what was written before changes the logits."""
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)
