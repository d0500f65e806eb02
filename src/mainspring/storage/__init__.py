"""Records and stores: the event log, the prediction log, offline tables and key-value stores.

The two logs are facts and are never changed; tables and key-value stores are derived from the event log and can be rebuilt.
"""
