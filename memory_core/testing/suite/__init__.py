"""The suites: what a backend, a cache tier and a wrapper must do, as tests to subclass."""

from memory_core.testing.suite.storage_suite import StorageSuite

__all__ = ["StorageSuite"]
