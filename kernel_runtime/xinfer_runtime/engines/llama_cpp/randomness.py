"""Random numbers that can be resumed anywhere: the n-th draw of a seed is a function of seed and n.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) adds a constant per draw
and hashes the sum, so the n-th draw needs none of the earlier ones. A replica that takes over a request after n
tokens goes on with draw n.
"""

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def uniform(seed: int, n: int) -> float:
    """The n-th draw of the seed, in [0, 1), with 53 random bits. Any int is a seed; those equal modulo 2**64 are
    one.
    """
    # The seed is hashed first, or the draws of neighbouring seeds could be one sequence shifted.
    start = _mix((seed + _GAMMA) & _MASK)
    return (_mix((start + (n + 1) * _GAMMA) & _MASK) >> 11) * 2.0**-53
