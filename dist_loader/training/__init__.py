"""What a training job needs around Keras's `fit`."""
