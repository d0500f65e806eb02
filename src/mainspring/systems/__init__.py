"""Systems that come with mainspring, each a declaration and loaders of real data."""
