"""How the cores of a node are divided among its replicas."""

from collections.abc import Mapping


def core_shares(cores: int, wants: Mapping[int, int]) -> dict[int, int]:
    """Cores for each replica, by its key, of those that can make use of so many: fair, and at least one each.

    Max-min fairness in whole cores: nobody gets more than it can use, and what it leaves goes to the others. Of equal
    claims on the last cores, those with the lower keys win, so that shares do not change without a reason.
    """
    shares = dict.fromkeys(sorted(wants), 1)
    left = cores - len(shares)
    while left > 0:
        hungry = [key for key, share in shares.items() if share < wants[key]]
        if not hungry:
            break
        for key in sorted(hungry, key=lambda each: (shares[each], each))[:left]:
            shares[key] += 1
            left -= 1
    return shares
