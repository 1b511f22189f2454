"""How numbers are written on the screen: three to four significant digits, nothing hidden."""

from __future__ import annotations

import math


def short(value: float | None) -> str:
    """Four significant digits; what is not finite is named.

    >>> short(0.000123456), short(1234567.0), short(float("nan")), short(0.5)
    ('1.235e-4', '1.235e6', 'NaN', '0.5')
    """
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    else:
        mantissa, _, exponent = f"{value:.3e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def count(value: int) -> str:
    """A whole number with separators.

    >>> count(16384)
    '16,384'
    """
    return f"{value:,}"


def size(value: float) -> str:
    """A number of bytes.

    >>> size(1536)
    '1.5 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1024 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def ago(seconds: float) -> str:
    """A span of time up to now.

    >>> ago(2.4), ago(75), ago(7300)
    ('2 s ago', '1 min ago', '2 h ago')
    """
    if seconds < 60:
        return f"{max(0, seconds):.0f} s ago"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    if seconds < 86400:
        return f"{seconds // 3600:.0f} h ago"
    return f"{seconds // 86400:.0f} d ago"


def duration(seconds: float) -> str:
    """How long something took.

    >>> duration(3.21), duration(125), duration(7300)
    ('3.2 s', '2 min 5 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
