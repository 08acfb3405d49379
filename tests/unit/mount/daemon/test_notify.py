"""What systemd is told."""

import os
import socket
from pathlib import Path

import pytest

from deferfs.mount.daemon.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_each_message_is_one_datagram(abstract: bool, tmp_path: Path) -> None:
    name = f"@deferfs-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        notifier = Notifier(name)
        notifier.ready("mounted")
        notifier.status("busy\nREADY=1")
        notifier.stopping()
        notifier.extend_timeout(2.5)
        received = [manager.recv(4096).decode().splitlines() for _ in range(4)]
    assert received[0] == ["READY=1", f"MAINPID={os.getpid()}", "STATUS=mounted"]
    assert received[1] == ["STATUS=busy\\nREADY=1"]
    assert received[2][0] == "STOPPING=1"
    assert received[3] == ["EXTEND_TIMEOUT_USEC=2500000"]


def test_the_address_leaves_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notifier = Notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    notifier.ready("no listener: no error")


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    Notifier().ready("mounted")
