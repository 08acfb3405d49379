import os
import signal

from deferfs.measure.work.shared_samples import SharedSamples


def test_samples_in_order() -> None:
    samples = SharedSamples(10_000)
    samples.touch()
    for latency in (5, 3, 8):
        samples.begin(100)
        samples.end(latency)
    assert samples.ended() == [5, 3, 8]
    assert samples.count == 3
    assert samples.waiting() == 0


def test_the_wait_that_has_not_ended() -> None:
    samples = SharedSamples(1)
    samples.begin(100)
    assert samples.waiting(now=350) == 250
    assert samples.ended() == []


def test_a_killed_process_leaves_its_samples_and_its_wait() -> None:
    samples = SharedSamples(4)
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        samples.begin(1)
        samples.end(7)
        samples.begin(2)
        os.write(done, b"x")
        signal.pause()
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(done)
    assert samples.ended() == [7]
    assert samples.waiting(now=12) == 10
