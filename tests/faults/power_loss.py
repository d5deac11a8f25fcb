"""What a power loss could leave of a directory tree: only what was synced is sure to be there.

Two things are synced apart: a file's content, by fsync of the file; which names a directory holds,
by fsync of the directory. That is all POSIX grants, and less than a journaling file system gives:
names are lost one by one, a rename inside one directory may lose both names. What was there when
the journal began counts as synced. Symbolic links and hard links' counts are left out. Must not
know what the files mean.

    with power_loss(run_directory, stop_at=n) as journal:
        work()
    journal.cut(destination)                # the worst case
    journal.cut(other_destination, rng)     # some of what was not synced had reached the disk
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from tests.faults.interception import Operation, intercept
from tests.faults.io_faults import Crash, SimulatedCrash

Listing = dict[str, int]
"""Identity of a file or directory per name."""


class Tree(NamedTuple):
    """Files and directories by identity, whatever names they have."""

    listings: dict[int, Listing]
    contents: dict[int, bytes]


@contextmanager
def power_loss(root: Path, stop_at: int | None = None) -> Iterator["Journal"]:
    """Record what is synced below `root`; at operation `stop_at`, from 1, crash as `crash_at` does.

    `journal.cut` describes the moment it is called at, within the `with` or right after it.
    """
    journal = Journal(root, stop_at)
    with intercept(journal), suppress(SimulatedCrash):
        yield journal


@final
class Journal(Crash):
    """Knows which contents and names would survive a power loss."""

    def __init__(self, root: Path, stop_at: int | None = None) -> None:
        super().__init__(root, stop_at)
        self._identities: dict[int, int] = {}
        """By inode. An inode is used again after a deletion, an identity is not."""
        self._num_identities = 0
        self._durable = self._survey()

    def done(self, operation: Operation) -> None:
        """Note what an operation created or synced."""
        path = operation.path
        if not os.path.lexists(path):
            return  # synced after its deletion
        if operation.kind in ("create", "mkdir"):
            self._identities.pop(path.lstat().st_ino, None)
        identity = self._identify(path)
        if operation.kind == "mkdir":
            self._durable.listings[identity] = {}
        elif operation.kind == "create":
            self._durable.contents[identity] = b""
        elif operation.kind == "fsync" and path.is_dir():
            self._durable.listings[identity] = self._list(path)
        elif operation.kind == "fsync":
            self._durable.contents[identity] = path.read_bytes()

    def cut(self, destination: Path, rng: np.random.Generator | None = None) -> None:
        """Write to `destination`, absent so far, what a power loss at this moment could leave.

        Args:
            destination: outside the root; stays absent where the root does not exist.
            rng: None for the worst case: no name and no content that was not synced. Otherwise
                each name is at random as synced or as it is now, and each content as synced, as
                it is now, or with half of what changed.
        """
        if self.covers(destination.resolve()):
            raise ValueError(f"{destination} lies inside the tree that it is to show")
        if not self.root.is_dir():
            return
        now, durable = self._survey(), self._durable
        listings = {
            identity: _surviving_names(
                durable.listings.get(identity, {}), now.listings.get(identity, {}), rng
            )
            for identity in sorted(durable.listings.keys() | now.listings.keys())
        }
        contents = {
            identity: _surviving_content(
                durable.contents.get(identity, b""), now.contents.get(identity), rng
            )
            for identity in sorted(durable.contents.keys() | now.contents.keys())
        }
        root = self._identify(self.root)
        _write_tree(Tree(listings, contents), root, destination)

    def _identify(self, path: Path) -> int:
        inode = path.lstat().st_ino
        if inode not in self._identities:
            self._identities[inode] = self._num_identities
            self._num_identities += 1
        return self._identities[inode]

    def _list(self, folder: Path) -> Listing:
        paths = sorted(path for path in folder.iterdir() if not path.is_symlink())
        return {path.name: self._identify(path) for path in paths}

    def _survey(self) -> Tree:
        tree = Tree({}, {})
        for folder, _, _ in os.walk(self.root):
            listing = self._list(Path(folder))
            tree.listings[self._identify(Path(folder))] = listing
            for name, identity in listing.items():
                path = Path(folder) / name
                if path.is_file():
                    tree.contents[identity] = path.read_bytes()
        return tree


def _surviving_names(synced: Listing, now: Listing, rng: np.random.Generator | None) -> Listing:
    survivors: Listing = {}
    for name in sorted(synced.keys() | now.keys()):
        source = synced if rng is None or rng.random() < 0.5 else now
        if name in source:
            survivors[name] = source[name]
    return survivors


def _surviving_content(synced: bytes, now: bytes | None, rng: np.random.Generator | None) -> bytes:
    if rng is None or now is None or now == synced:
        return synced
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(synced, now, strict=False))
    kept = sum(1 for _ in same)  # what nobody touched stays
    torn = now[: kept + (len(now) - kept) // 2]
    return (synced, torn, now)[rng.integers(3)]


def _write_tree(tree: Tree, folder: int, destination: Path) -> None:
    destination.mkdir(parents=True)
    for name, identity in tree.listings[folder].items():
        if identity in tree.listings:
            _write_tree(tree, identity, destination / name)
        else:
            (destination / name).write_bytes(tree.contents[identity])
