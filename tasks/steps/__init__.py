"""The Prefect tasks, a module a stage: each opens the store, calls, writes, returns a small thing.

A flow imports the stages that it has, since what the others need takes seconds to load.
"""
