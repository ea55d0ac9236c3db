"""The input pipeline against PyTorch and tf.data."""
