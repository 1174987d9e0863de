"""The steps of flows: each opens a store, calls the mathematics, writes, and returns a key."""
