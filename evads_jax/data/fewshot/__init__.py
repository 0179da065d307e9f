"""Image sets for few-shot learning: rendered domains, digits, class folders and sets of the TFDS catalogue."""
