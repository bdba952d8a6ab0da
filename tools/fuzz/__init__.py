"""Readers of what strangers send, fed with what nobody would send.

    make fuzz FUZZ_SECONDS=300 FUZZ_TARGETS="soap csr"

A target is a reader and what must hold of it: it reads, or refuses with its own error, and nothing
else. `python -m tools.fuzz` runs each with atheris (coverage-guided) from the seeds beside it; the
tests of tests/fuzz run the same targets with hypothesis, for a moment, in every test run.
"""
