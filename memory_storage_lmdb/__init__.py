"""The LMDB backend and the adaptive cache."""
