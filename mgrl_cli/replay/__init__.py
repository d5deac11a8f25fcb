"""What one agent has experienced: a ring in memory to sample from, a log on disk to keep.

`schema` names what is stored of an episode, `ring` and `sampling` serve batches to the algorithm,
`log` writes and `reader` reads one agent's Zarr group, `verification` judges what was read.
Nothing here knows which environment, policy or objective produced an episode, or in which process.
"""
