"""Rows drawn by hypothesis: sequences of calls on few names and one file, so that they get in each other's way."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = ("a", "b", "d", "d/a", "d/e", "d/e/f", "l", "l/a", ".", "d/..", "none/x")
_USERS = ("", "", "", "as alice ", "as carol ")
_MODES = ("0", "0600", "0644", "0755", "0777", "02755", "04755", "01777", "0700")
_FLAGS = ("0", "RENAME_NOREPLACE", "RENAME_EXCHANGE", "RENAME_WHITEOUT")
_OPEN = ("O_RDWR", "O_RDWR|O_CREAT", "O_RDWR|O_CREAT|O_EXCL", "O_RDWR|O_TRUNC", "O_RDONLY", "O_WRONLY|O_APPEND",
         "O_RDONLY|O_DIRECTORY", "O_RDWR|O_NOFOLLOW")  # fmt: skip
_LISTS = ("u::rw-,u:1001:rwx,g::r-x,m::rwx,o::---", "u::rwx,g::r-x,o::--x", "u::---,g:2000:rw-,g::---,m::rw-,o::r--")
_VARIABLES = ("h", "i")

_name = st.sampled_from(_NAMES)
_mode = st.sampled_from(_MODES)
_variable = st.sampled_from(_VARIABLES)
_xattr = st.sampled_from(("user.a", "user.b", "trusted.c"))


def _call(verb: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[str]:
    return st.tuples(*arguments).map(lambda words: " ".join((verb, *map(str, words))))


_ON_NAMES = st.one_of(
    _call("mkdir", _name, _mode),
    _call("mkdir", _name),
    _call("creat", _name, _mode),
    _call("creat", _name, _mode),
    _call("mknod", _name, st.sampled_from(("S_IFSOCK|0640", "S_IFREG|0666"))),
    _call("symlink", _name, _name),
    _call("link", _name, _name),
    _call("unlink", _name),
    _call("unlink", _name),
    _call("rmdir", _name),
    _call("rename", _name, _name),
    _call("rename", _name, _name, st.sampled_from(_FLAGS)),
    _call("chmod", _name, _mode),
    _call("lchown", _name, st.sampled_from((0, 1001, 1003, -1)), st.sampled_from((0, 1001, 2000, -1))),
    _call("truncate", _name, st.sampled_from((0, 1, 100, 4096, 5000, 100_000))),
    _call("put", _name, st.sampled_from(("x", "some\\stext"))),
    _call("append", _name, st.sampled_from(("y", "more"))),
    _call("content", _name),
    _call("setxattr", _name, _xattr, st.sampled_from(("v", "{w*300}")), st.sampled_from(("0", "1", "2"))),
    _call("getxattr", _name, _xattr),
    _call("removexattr", _name, _xattr),
    _call("setacl", _name, st.sampled_from(_LISTS)),
    _call("setdefault", _name, st.sampled_from(_LISTS)),
    _call("dropdefault", _name),
    _call("utime", _name, st.sampled_from(("1", "NOW", "OMIT")), st.sampled_from(("7", "NOW", "OMIT"))),
    _call("umask", st.sampled_from(("0", "022", "077"))),
    _call("names", _name),
    _call("access", _name, st.sampled_from(("R_OK", "W_OK", "X_OK"))),
    _call("mode", _name),
    _call("owner", _name),
    _call("nlink", _name),
    _call("readlink", _name),
    _call("chdir", st.sampled_from(("d", "d/e", "."))),
    st.tuples(_variable, _name, st.sampled_from(_OPEN)).map(lambda words: "{}=open {} {}".format(*words)),
    _call("write", _variable, st.sampled_from(("x", "yy"))),
    _call("fnlink", _variable),
    _call("fsize", _variable),
    _call("fmode", _variable),
    _call("fchmod", _variable, _mode),
    _call("ftruncate", _variable, st.sampled_from((0, 10, 5000))),
    _call("fsync", _variable),
    _call("close", _variable),
)

_TOP = "t=open . O_RDONLY"
_END = ("fchdir t", "listing")

NAMES: st.SearchStrategy[list[str]] = st.lists(
    st.tuples(st.sampled_from(_USERS), _ON_NAMES).map(lambda pair: _prefixed(*pair)), min_size=5, max_size=40
).map(lambda steps: [_TOP, "h=creat h 0644", "i=creat i 0600", *steps, *_END])
"""Steps on names, attributes and handles, some of them as another user. Both handles are open at the start."""

_EDGES = (0, 1, 100, 400, 511, 4095, 4096, 4097, 8192, 60_000, 65_536, 131_072, 200_000, 1_000_000)
_offset = st.sampled_from(_EDGES) | st.integers(0, 300_000)
_length = st.sampled_from((1, 2, 100, 4095, 4096, 4097, 16_384, 70_000, 140_000)) | st.integers(1, 150_000)
_letter = st.sampled_from("abcdefgh")
_handle = st.sampled_from(("a", "b"))

_ON_DATA = st.one_of(
    _call("fill", _handle, _letter, _length, _offset),
    _call("fill", _handle, _letter, _length, _offset),
    _call("digest", _handle, _length, _offset),
    _call("map_fill", _handle, _letter, _length, _offset),
    _call("map_digest", _handle, _length, _offset),
    _call("ftruncate", _handle, _offset),
    _call("truncate f", _offset),
    _call("append_fill f", _letter, _length),
    _call("move_within", _handle, _length, _offset, _offset),
    _handle.map(lambda handle: f"{handle}=reopen f {handle}"),
    _call("fsync", _handle),
    _call("evict_pages", _handle),
    _call("size f"),
    _call("fsize", _handle),
)

DATA: st.SearchStrategy[list[str]] = st.lists(_ON_DATA, min_size=5, max_size=40).map(
    lambda steps: [_TOP, "a=open f O_RDWR|O_CREAT", "b=open f O_RDWR", *steps, *_END]
)
"""Steps on the content of one file, through two handles."""


def _prefixed(user: str, step: str) -> str:
    """`NAME=` comes before the user."""
    variable, equals, call = step.partition("=") if step[1:2] == "=" else ("", "", step)
    return f"{variable}{equals}{call}" if equals else f"{user}{call}"
