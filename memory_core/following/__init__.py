"""Derived data that keeps up with a store: what can be computed from records follows their change feed."""

from memory_core.following.derived import Bookmark, Derived
from memory_core.following.follower import FeedFollower
from memory_core.following.readable import readable, readable_pages

__all__ = ["Bookmark", "Derived", "FeedFollower", "readable", "readable_pages"]
