"""The suites: the contracts of a backend, a cache tier and a wrapper as tests to subclass."""

from memory_core.testing.suite.storage_suite import StorageSuite

__all__ = ["StorageSuite"]
