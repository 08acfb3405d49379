"""The soak: what its processes do, what is done to the mount meanwhile, and what is promised."""
