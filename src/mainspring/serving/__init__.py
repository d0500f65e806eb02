"""The prediction service: from a valid request to an answer, with what to do when a part of it fails."""
