"""Models larger than the device: weights that stay elsewhere and come by when they are needed."""
