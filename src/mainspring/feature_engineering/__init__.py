"""How facts become feature values: columns, folds over the facts of a key, functions of the request."""
