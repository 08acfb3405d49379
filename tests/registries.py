"""How this machine reaches its package registries, told in a way that a bare Debian beside it understands.

    registries.py apt CODENAME     sources of apt for that release, from `apt-get indextargets` on standard input
    registries.py pip              the environment variables of pip, one a line

Only how to get there is taken over: addresses, proxies, certificates, patience. What else pip is told on this machine
(packages on its disk, constraints) is what a bare machine does not have. Needs nothing but the standard library.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

TARGET_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
"""What `apt-get indextargets --format` is to print."""
_PIP_KEYS = ("index-url", "extra-index-url", "proxy", "trusted-host", "timeout", "retries", "default-timeout")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")


def apt_sources(targets: str, codename: str) -> list[str]:
    """The lines of sources.list for another release of Debian: the same places, with its name for the machine's."""
    found: dict[str, None] = {}
    for line in targets.splitlines():
        address, suite, component, origin = line.split()
        _, dash, pocket = suite.partition("-")
        if origin == "Debian" and component == "main" and pocket in ("", "updates", "security"):
            found[f"deb {address} {codename}{dash}{pocket} main"] = None
    return list(found)


def pip_environment(files: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """What the texts of pip's configuration files, the weightiest last, and the environment say of how to get there."""
    told: dict[str, str] = {}
    for text in files:
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        for section in ("global", "install"):
            if parser.has_section(section):
                told.update(parser.items(section))
    told.update({name[4:].lower().replace("_", "-"): environment[name] for name in environment if name[:4] == "PIP_"})
    found = {}
    for key in _PIP_KEYS:
        words = [word for word in told.get(key, "").split() if not word.startswith(("file:", "/", "."))]
        if words:
            found[f"PIP_{key.upper().replace('-', '_')}"] = " ".join(words)
    for name in environment:
        if name.lower() in _PROXIES:
            found[name] = environment[name]
    return found


def _pip_files() -> list[str]:
    home = Path.home()
    places = (
        *(Path(folder, "pip", "pip.conf") for folder in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"), "pip", "pip.conf"),
        Path(os.environ.get("PIP_CONFIG_FILE", os.devnull)),
    )
    return [place.read_text() for place in places if place.is_file()]


def main(words: list[str]) -> None:
    """See the head of this file."""
    if words[0] == "apt":
        lines = apt_sources(sys.stdin.read(), words[1])
    else:
        lines = [f"{name}={value}" for name, value in pip_environment(_pip_files(), os.environ).items()]
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
