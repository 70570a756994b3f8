"""What managed_store costs against what it wraps: ``python -m tests.benchmarks``."""
