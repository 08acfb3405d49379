"""The handshake between the command and its daemon. Each case runs in an interpreter of its own: forking is for
processes without threads."""

import subprocess
import sys
import textwrap

import pytest


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(
        """
        import os, sys
        from deferfs.errors import EnvironmentProblem, MountFailedError
        from deferfs.mount.daemon.fork import DaemonBugError, run_in_background
        """
    ) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_the_parent_returns_when_the_mount_is_usable_and_the_daemon_lives_on() -> None:
    done = run(
        """
        results, finished = os.pipe(), os.pipe()
        parent = os.getpid()
        def serve(handshake):
            handshake.ready()
            os.read(finished[0], 1)  # until the parent has gone on
            facts = [os.getpid() != parent, os.getsid(0) != os.getsid(parent), os.getcwd() == "/",
                     os.readlink("/proc/self/fd/0"), os.readlink("/proc/self/fd/2")]
            os.write(results[1], repr(facts).encode())
        run_in_background(serve)
        os.write(finished[1], b"x")
        print(os.read(results[0], 1000).decode())
        """
    )
    assert done.stdout.strip() == "[True, True, True, '/dev/null', '/dev/null']"
    assert done.stderr == ""


def test_the_error_of_the_daemon_is_the_error_of_the_command() -> None:
    done = run(
        """
        def serve(handshake):
            raise EnvironmentProblem("no /dev/fuse here")
        try:
            run_in_background(serve)
        except EnvironmentProblem as error:
            print(error, error.exit_code)
        """
    )
    assert done.stdout.strip() == "no /dev/fuse here 2"


def test_a_bug_in_the_daemon_is_one_line_for_the_command() -> None:
    done = run(
        """
        def serve(handshake):
            1 / 0
        try:
            run_in_background(serve)
        except DaemonBugError as error:
            print(error, error.exit_code)
        """
    )
    assert done.stdout.strip() == "internal error: ZeroDivisionError: division by zero 70"


def test_a_daemon_that_vanishes_is_noticed() -> None:
    done = run(
        """
        def serve(handshake):
            os.kill(os.getpid(), 9)
        try:
            run_in_background(serve)
        except MountFailedError as error:
            print(error, error.exit_code)
        """
    )
    assert "the daemon ended before the mount was usable" in done.stdout
    assert done.stdout.strip().endswith("32")


@pytest.mark.parametrize("body", ["return", "raise MountFailedError('late')"])
def test_buffered_output_of_the_caller_is_printed_once(body: str) -> None:
    done = run(
        f"""
        print("once", end="")
        def serve(handshake):
            handshake.ready()
            {body}
        run_in_background(serve)
        """
    )
    assert done.stdout == "once"
