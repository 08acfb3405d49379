"""Crash consistency: a model filesystem, the disk states a power failure may leave, and an oracle that judges them.

`content` and `model` say what a filesystem should hold, independently of the store. `twin` drives a volume and the
model together and keeps the `history` of states. `states` makes the images a crash may leave, out of a recorded log
of writes and flushes. `oracle` recovers such an image and says whether what it finds is allowed.
"""
