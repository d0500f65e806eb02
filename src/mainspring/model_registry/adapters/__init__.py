"""Where the registry's rows lie, and what signs them: each with its engine, imported when used."""
