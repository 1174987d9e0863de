"""The feature store: immutable parts and published records, on a folder, S3 or memory."""
