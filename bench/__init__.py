"""Benchmarks: one module a benchmark, each with `run() -> Outcome`; `python -m bench` runs them."""
