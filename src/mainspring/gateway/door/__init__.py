"""Everything between the socket and a handler: who asks, whether it may, how much, in time; what came of it is counted and logged."""
