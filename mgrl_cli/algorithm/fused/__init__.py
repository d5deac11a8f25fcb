"""The learned objective as compiled kernels (numba, the extra "fast").

`objective` is the interface and `tape` its memory; neither imports numba. The other modules hold
kernels and are imported at the first use. Read `objective_network` first: here are the same
equations, over tiles of 16 windows × 4 steps.
"""
