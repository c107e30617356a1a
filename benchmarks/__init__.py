"""Benchmarks, conformance tests, chaos tests and attacks, for Legato and other Pusher servers."""
