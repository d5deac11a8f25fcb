"""Announced events as one harmless line.

An event quotes what environments and workers said, which may be any text of any length. Knows
nothing of what happened or of where it is shown.
"""

_MAX_HEAD = 400
_MAX_TAIL = 200
"""Characters kept of a longer event. Its end is kept too: what is done about it stands there."""
_CUT = " ... "


def event_text(event: str) -> str:
    r"""Return `event` on one line of printable characters, what is not printable as "\x1b".

    Line breaks become spaces. Longer events than some 600 characters lose their middle.
    """
    lines = (line.strip() for line in event.splitlines())
    joined = " ".join(line for line in lines if line)
    max_length = _MAX_HEAD + _MAX_TAIL
    if len(joined) <= max_length:
        escaped = _escaped(joined)
        if len(escaped) <= max_length:
            return escaped
    # Cut before and after: an escape is up to ten times as long as what it stands for.
    head, tail = _escaped(joined[:_MAX_HEAD]), _escaped(joined[-_MAX_TAIL:])
    return head[:_MAX_HEAD] + _CUT + tail[-_MAX_TAIL:]


def _escaped(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
