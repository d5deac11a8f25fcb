"""Text from a file, made fit to be shown: whoever wrote it, it cannot steer a terminal."""

_LONGEST_TEXT = 300
"""Characters of one cell or line; a damaged file may hold any text."""


def plain_text(text: str) -> str:
    """Return `text` on one line, cut where it is long, with everything unprintable spelled out."""
    shown = text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown
    )
