"""A client of Hrana 3, the protocol of libSQL servers, over HTTP.

The protocol is specified in ``docs/HRANA_3_SPEC.md`` of the libSQL repository. This package knows
requests, streams and batons; pooling, retries and replicas are built on it elsewhere.
"""
