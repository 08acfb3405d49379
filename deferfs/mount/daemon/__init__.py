"""The life cycle of a mount: starting, serving, signals, unmounting."""
