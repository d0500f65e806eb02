"""Training: a point-in-time data set, a model fitted to it, a version in the registry."""
