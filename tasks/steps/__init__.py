"""The Prefect tasks, a module a stage: each opens the store, calls, writes, returns little.

A flow imports only its own stages, since what the others need takes seconds to load.
"""
