"""The sticky split of traffic between two versions."""

from __future__ import annotations

from hashlib import blake2b


def assign(unit: str, share: float, salt: str) -> bool:
    """Whether ``unit`` is among the ``share`` of units (0 to 1) that get the challenger.

    The unit's place is a hash (BLAKE2b of salt and unit) read as uniform in [0, 1): the same for ever, and whoever is in at
    1 % is in at 10 %. ``salt`` is the challenger's version, so that each version draws its own units.
    """
    seed = len(salt).to_bytes(4, "big") + salt.encode(errors="surrogatepass") + unit.encode(errors="surrogatepass")
    return (int.from_bytes(blake2b(seed, digest_size=8).digest(), "big") >> 11) / 2**53 < share
