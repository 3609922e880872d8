"""A user's stream of items of unknown length, as batches that all ranks agree on."""
