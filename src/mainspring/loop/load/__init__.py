"""Load on a running service: requests at their scheduled instants, and what they came to."""
