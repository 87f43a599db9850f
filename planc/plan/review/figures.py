"""One notation of costs and shares on every screen: ``25.6 M → 6.9 M (−73 %)``.

Prefixes are powers of 1,000. A share never rounds a change away: below a whole removal it is at
most 99.9 %, and above none at least 0.1 %.
"""

from __future__ import annotations

_PREFIXES = (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12), ("P", 10**15))
_TIMES = (("ns", 1), ("µs", 10**3), ("ms", 10**6), ("s", 10**9))


def figure(value: int, like: int | None = None) -> str:
    """A count with three significant digits, or with the prefix and decimals of ``like``.

    >>> figure(405_312), figure(25_557_032), figure(640), figure(6_917_640, like=25_557_032)
    ('405 k', '25.6 M', '640', '6.9 M')
    """
    prefix, scale, decimals = _scale(value if like is None else like)
    if value < scale:
        prefix, scale, decimals = _scale(value)
    return _formatted(value, prefix, scale, decimals)


def change(before: int, after: int) -> str:
    """Two counts and the share between, with the prefix and decimals of the first where they fit.

    >>> change(25_557_032, 6_917_640), change(1_363_584, 405_312), change(97, 0)
    ('25.6 M → 6.9 M (−73 %)', '1.36 M → 405 k (−70 %)', '97 → 0 (−100 %)')
    """
    return f"{figure(before)} → {figure(after, before)} ({share(before, after)})"


def share(before: int, after: int) -> str:
    """The relative change from ``before`` to ``after``.

    >>> share(64, 32), share(1000, 1), share(1000, 999), share(7, 7), share(64, 0)
    ('−50 %', '−99.9 %', '−0.1 %', '±0 %', '−100 %')
    """
    if before == after or not before:
        return "±0 %"
    part = abs(after - before) / before * 100
    sign = "−" if after < before else "+"
    if part < 0.95:
        return f"{sign}{max(part, 0.1):.1f} %"
    if after and sign == "−" and part >= 99.5:
        return f"{sign}{min(part, 99.9):.1f} %"
    return f"{sign}{part:.0f} %"


def duration(nanoseconds: int) -> str:
    """A time with three significant digits.

    >>> duration(12_340_000), duration(950), duration(2_000_000_000)
    ('12.3 ms', '950 ns', '2.00 s')
    """
    unit, scale = next((entry for entry in reversed(_TIMES) if nanoseconds >= entry[1]), _TIMES[0])
    return _formatted(nanoseconds, unit, scale, _decimals(nanoseconds, scale))


def _scale(value: int) -> tuple[str, int, int]:
    """Prefix, its power and the decimals for three significant digits."""
    for prefix, scale in reversed(_PREFIXES):
        decimals = _decimals(value, scale)
        if round(value / scale, decimals) >= 1 and value >= scale * 0.9995:
            return prefix, scale, decimals
    return "", 1, 0


def _decimals(value: int, scale: int) -> int:
    whole = value / scale
    return 0 if scale == 1 or whole >= 99.95 else 1 if whole >= 9.995 else 2


def _formatted(value: int, unit: str, scale: int, decimals: int) -> str:
    number = f"{value / scale:,.{decimals}f}"
    return f"{number} {unit}" if unit else number
