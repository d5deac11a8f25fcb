"""One module per command, and the options that several of them share.

A command reads its options, builds what they describe, calls one function and prints the result.
`mgrl --help` imports every module here: whatever is heavy is imported inside the command's body.
"""

from typing import Annotated

import typer

DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)
]
"""Every command has it; `cli.py` alone reads it, from the command line itself."""

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of tables.", show_default=False)
]
