"""Benchmarks of the repository; bench/run starts them."""
