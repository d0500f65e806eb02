"""What needs a package of an extra: signed tokens, limits on a server, traces. Imported when used."""
