"""A system without its server: one file, or one page, that answers as the service does."""
