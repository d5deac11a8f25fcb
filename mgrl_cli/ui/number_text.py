"""How figures read in the progress views: short, of bounded width, with one mark for "unknown".

Knows nothing of what the figures mean or where they are shown.
"""

import math

MISSING = "–"
"""Stands for a figure that is not known (yet)."""

_SECONDS_PER_MINUTE = 60
_SECONDS_PER_HOUR = 3600
_SECONDS_PER_DAY = 86400


def return_text(value: float) -> str:
    """Return an episode return in at most 7 characters: "-12.3", "1234", "-12.3k", "4.56M"."""
    if not math.isfinite(value):
        return _not_finite_text(value)
    for limit, unit, text in ((999_950, 1e6, "M"), (9_999.5, 1e3, "k")):
        if abs(value) >= limit:
            scaled = f"{value / unit:.1f}{text}"
            return scaled if len(scaled) <= len("-999.9M") else f"{value:.0e}"
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}"


def small_text(value: float, *, signed: bool = False) -> str:
    """Return a loss, norm or gain with 3 significant digits: "0.00123", "45.6", "1.2e-05".

    Args:
        value: any figure.
        signed: write the plus of a positive value too.
    """
    if not math.isfinite(value):
        return _not_finite_text(value)
    sign = "+" if signed else ""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 9_999.5:
        return f"{value:{sign}.1e}"
    if abs(value) >= 99.95:
        return f"{value:{sign}.0f}"
    return f"{value:{sign}#.3g}"


def count_text(count: float) -> str:
    """Return a count in at most 6 characters up to a billion: "950", "12.3k", "1.25M"."""
    if not math.isfinite(count):
        return _not_finite_text(count)
    if count < 9_999.5:
        return f"{count:.0f}"
    if count < 999_950:
        return f"{count / 1e3:.1f}k"
    return f"{count / 1e6:.2f}M"


def duration_text(seconds: float) -> str:
    """Return a time span as "0:07", "12:34", "1:02:03" or "2d 03:04"."""
    if not math.isfinite(seconds):
        return _not_finite_text(seconds)
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, _SECONDS_PER_MINUTE)
    if whole < _SECONDS_PER_HOUR:
        return f"{minutes}:{second:02d}"
    hours, minute = divmod(minutes, 60)
    if whole < _SECONDS_PER_DAY:
        return f"{hours}:{minute:02d}:{second:02d}"
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02d}:{minute:02d}"


def percent_text(fraction: float) -> str:
    """Return a fraction as "0%" to "100%"; 100% only once nothing is left."""
    return f"{math.floor(min(max(fraction, 0.0), 1.0) * 100)}%"


def _not_finite_text(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return "inf" if value > 0 else "-inf"
