"""What the processes of a scenario do, each operation timed: loads, probes, trees of files."""
