"""What identifies the code of compiled kernels, and whether they can be had at all.

numba's cache looks at one file only, and at what a function closes over: without a digest of all
files that its kernels come from, old machine code would outlive a change elsewhere.
"""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

ALGORITHM = Path(__file__).parent.parent


@cache
def is_numba_installed() -> bool:
    """Return whether kernels can be compiled: numba is the extra "fast"."""
    return importlib.util.find_spec("numba") is not None


def digest_of(*names: str) -> str:
    """Return the SHA-256 of source files, named relative to `algorithm/`."""
    code = b"".join((ALGORITHM / name).read_bytes() for name in names)
    return hashlib.sha256(code).hexdigest()
