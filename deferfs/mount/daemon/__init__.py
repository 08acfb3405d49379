"""The life of a mount: starting, serving, signals, unmounting."""
