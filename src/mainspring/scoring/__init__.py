"""Answers to whole files: the request path of the server, chunk by chunk."""
