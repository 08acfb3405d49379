"""Measuring: workloads, probes, memory cgroups, tracing, histograms, statistics and the report.

Everything here drives a filesystem from outside, through its mount; nothing imports the filesystem
itself.
"""
