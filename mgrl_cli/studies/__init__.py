"""Several runs planned, executed and judged together: matrices and tests along a meta-training."""
