"""The design of a system and the proof of it: diagrams, verdicts, reports. Reads everything below, changes nothing."""
