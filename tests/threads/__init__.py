"""What public threads report about sessions that nobody closes, as programs: plain zarr beside a managed store.

``python -m tests.threads`` runs all of them and writes the page of the documentation.
"""
