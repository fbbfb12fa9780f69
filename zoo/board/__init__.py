"""TensorBoard: what a run shows there, and the verb that opens it."""
