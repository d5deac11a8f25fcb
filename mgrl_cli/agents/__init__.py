"""State that learns: the equations composed with optimisers, replay and environments."""
