"""The work of the processes of a scenario, with every operation timed: loads, probes, trees of files."""
