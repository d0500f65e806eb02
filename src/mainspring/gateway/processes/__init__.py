"""The processes of a server: a supervisor, workers that share its socket, one that follows the event log."""
