"""The drivers of libSQL servers: pools, replicas, tenants and the protocol Hrana."""
