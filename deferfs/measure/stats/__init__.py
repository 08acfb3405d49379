"""From samples to ratios with intervals and verdicts."""
