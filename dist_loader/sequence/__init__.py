"""Sequences: the batches of one rank, as Keras takes them."""
