"""`mgrl verify`: prove that what mgrl wrote is what it wrote.

Prints what was found, part by part. Knows nothing of how anything is proved.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgrl_cli.commands import DebugOption, JsonOption
from mgrl_cli.commands.inspect import size_text
from mgrl_cli.errors import FileError
from mgrl_cli.inspection.plain_text import plain_text

if TYPE_CHECKING:
    from mgrl_cli.inspection.findings import Part, Verification


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A run directory, a checkpoint, a buffer.zarr, one agent's group in it, or an "
            "objective file.",
        ),
    ],
    *,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Prove every byte that a run can be resumed from or judged by, and name what is damaged.

    Reads only, also while a run goes on. Compares settings, checkpoints, metrics, objectives and
    replay with their digests; logs, event files, figures and results.json have none. Exit code 4 if
    anything is damaged. Example: mgrl verify runs/demo
    """
    from json import dumps

    from mgrl_cli.inspection.verification import verify as prove

    found = prove(path)
    if json:
        typer.echo(dumps(_document(found), indent=2))
    else:
        for line in _lines(found):
            typer.echo(_printable(line))
    if not found.is_whole:
        first, *others = found.problems
        more = _count_text({"more problem": len(others)}, "more problem")
        raise FileError(f"'{path}' is damaged: {first}{f' (and {more})' if others else ''}")


def _document(found: "Verification") -> dict[str, object]:
    """Return the JSON document."""
    parts = [
        {"part": part.name, "finding": part.finding, "bytes": part.num_bytes, **part.counts}
        for part in found.parts
    ]
    return {
        "path": found.path,
        "kind": found.kind,
        "whole": found.is_whole,
        "parts": parts,
        "problems": found.problems,
        "notes": found.notes,
    }


def _lines(found: "Verification") -> list[str]:
    return [
        *(_part_line(part) for part in found.parts),
        *(f"note: {note}" for note in found.notes),
        *(f"problem: {problem}" for problem in found.problems),
        _summary(found),
    ]


def _part_line(part: "Part") -> str:
    counts = [_count_text(part.counts, word) for word in ("test", "step", "episode", "file")]
    size = size_text(part.num_bytes) if part.num_bytes else ""
    return f"{part.name}: {', '.join(text for text in (*counts, size, part.finding) if text)}"


def _summary(found: "Verification") -> str:
    """Return the whole outcome on one line."""
    agents, steps = (_count_text(found.counts, word) for word in ("agent", "step"))
    read = [
        *(_count_text(found.counts, word) for word in ("file", "checkpoint")),
        f"{agents} with {steps}" if agents and steps else agents,
        f"{size_text(found.num_bytes)} read",
    ]
    number = len(found.problems)
    outcome = f"damaged, {number} problem{'' if number == 1 else 's'}" if number else "whole"
    return f"{outcome}: {', '.join(text for text in read if text)}"


def _count_text(counts: Mapping[str, int], word: str) -> str:
    """Return such as "1,234 steps"; empty where there is no such count."""
    if word not in counts:
        return ""
    return f"{counts[word]:,} {word}{'' if counts[word] == 1 else 's'}"


def _printable(line: str) -> str:
    """Return a line that any stdout can take."""
    encoding = sys.stdout.encoding or "ascii"
    return plain_text(line).encode(encoding, "backslashreplace").decode(encoding)
