"""The soak: the work of its processes, the disturbances of the mount, and the checks of promises."""
