"""State that learns: the algorithm's equations composed with optimisers, replay and environments."""
