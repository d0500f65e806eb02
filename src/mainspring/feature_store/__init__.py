"""Features with the same answer offline, in the stream and online."""
