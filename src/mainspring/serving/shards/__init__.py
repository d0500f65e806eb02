"""Large tables of nets, held by processes beside those that answer: what travels between them, who holds, who asks."""
