"""How sure a measured share is."""

from math import sqrt
from statistics import NormalDist

from nemo_reasoning.errors import DataError


def wilson_interval(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Unlike the normal approximation it stays within 0 and 1, and has a width at 0 and at n successes.

    Args:
        successes: From 0 to `n`.
        n: Trials.
        confidence: Probability with which such an interval covers the true share.

    Raises:
        DataError: `n` is 0, or `successes` lies outside 0 to n.
    """
    if not 0 <= successes <= n or n == 0:
        raise DataError(f"{successes} successes in {n} trials have no interval; evaluate at least one problem")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, squared = successes / n, z * z / n
    centre = share + squared / 2
    spread = sqrt(squared * (share * (1 - share) + squared / 4))
    return max(0.0, (centre - spread) / (1 + squared)), min(1.0, (centre + spread) / (1 + squared))
