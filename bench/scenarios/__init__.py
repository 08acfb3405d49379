"""One module for each scenario; those that are commands have a `command`."""
