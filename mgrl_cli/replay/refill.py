"""From the log on disk back into memory: what a resumed agent samples from.

A ring draws by what it holds, not by how that came to be, so the newest episodes are enough. Must
not know how either side stores them.
"""

from mgrl_cli.errors import FileError, UsageError
from mgrl_cli.replay.reader import ReplayReader
from mgrl_cli.replay.ring import ReplayRing


def refill(ring: ReplayRing, reader: ReplayReader, num_episodes: int) -> None:
    """Append the newest committed episodes, oldest first.

    Given as many as another ring held when they were committed, an empty ring then draws the same
    batches as that one.

    Args:
        ring: empty, as a rule.
        reader: ends with the episode that is to be the newest.
        num_episodes: how many.

    Raises:
        FileError: fewer are committed, or the data are damaged or do not fit the ring.
        StorageError: the operating system refused.
    """
    if not 0 <= num_episodes <= reader.committed_episodes:
        raise FileError(
            f"{reader.path} holds {reader.committed_episodes} episodes, {num_episodes} are to be "
            "sampled from; resume from a checkpoint of this run."
        )
    for index in range(reader.committed_episodes - num_episodes, reader.committed_episodes):
        # In this order the reader opens every chunk once, however many episodes lie in it.
        episode = reader.read_episode(index)
        try:
            ring.append(episode)
        except UsageError as error:
            raise FileError(f"{reader.path}: episode {index} cannot be used: {error}") from error
