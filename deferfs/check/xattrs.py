"""Extended attributes of one inode: the chain of blocks and the string in it."""

from __future__ import annotations

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.errors import CorruptionError
from deferfs.limits import XATTR_BYTES_MAX, XATTR_VALUE_BYTES_MAX
from deferfs.ondisk.inode import Inode
from deferfs.ondisk.xattr import XattrBlock, pack_xattrs, unpack_xattrs


def check_xattrs(context: Context, inode: Inode) -> tuple[int, bool]:
    """(blocks of the chain, whether it could be followed to its end)."""
    ino = inode.ino
    if not inode.xattr_block:
        if inode.xattrs:
            _check_string(context, ino, inode.xattrs)
        return 0, True
    if inode.xattrs:
        context.findings.add(catalogue.XATTR_BOTH, f"inode {ino}: xattrs both inline and in blocks", ino=ino)
    payload, blocks, complete = read_chain(context, inode)
    if complete:
        _check_string(context, ino, payload)
    return blocks, complete


def read_chain(context: Context, inode: Inode) -> tuple[bytes, int, bool]:
    """(payload, blocks, whole). The chain is claimed block by block, so that a loop ends the walk."""
    ino, fmt = inode.ino, context.fmt
    limit = -(-2 * XATTR_BYTES_MAX // XattrBlock.payload_max(fmt))
    parts: list[bytes] = []
    blocks, address = 0, inode.xattr_block
    while address:
        if blocks == limit or not context.claims.inside(address, 1):
            text = f"inode {ino}: xattr chain: block {address} after {blocks} others"
            context.findings.add(catalogue.XATTR_CHAIN, text, ino=ino, block=address)
            return b"", blocks, False
        blocks += 1
        if not context.claims.claim(address, 1, f"inode {ino}: xattr block"):
            return b"", blocks, False
        link = _read_link(context, ino, address)
        if link is None:
            return b"", blocks, False
        parts.append(link.payload)
        address = link.next
    return b"".join(parts), blocks, True


def _read_link(context: Context, ino: int, address: int) -> XattrBlock | None:
    data = context.reader.read(address)
    if data is None:
        return None
    try:
        link = XattrBlock.decode(context.fmt, address, data)
        if link.owner != ino:
            raise CorruptionError(f"belongs to inode {link.owner}")
    except CorruptionError as error:
        text = f"inode {ino}: xattr block {address}: {error.detail}"
        context.findings.add(catalogue.XATTR_BLOCK, text, ino=ino, block=address)
        return None
    return link


def _check_string(context: Context, ino: int, data: bytes) -> None:
    findings = context.findings
    try:
        xattrs = unpack_xattrs(data)
    except CorruptionError as error:
        findings.add(catalogue.XATTR_DAMAGED, f"inode {ino}: {error.detail}", ino=ino)
        return
    if any(b"\0" in name for name in xattrs):
        findings.add(catalogue.XATTR_DAMAGED, f"inode {ino}: the name of an xattr has a zero byte", ino=ino)
    if not xattrs:
        findings.add(catalogue.XATTR_DAMAGED, f"inode {ino}: an xattr block without xattrs", ino=ino)
    elif pack_xattrs(xattrs) != data:
        findings.add(catalogue.XATTR_ORDER, f"inode {ino}: xattrs not sorted or repeated", ino=ino)
    longest = max(map(len, xattrs.values()), default=0)
    if len(data) > XATTR_BYTES_MAX or longest > XATTR_VALUE_BYTES_MAX:
        text = f"inode {ino}: {len(data)} bytes of xattrs, the longest value {longest}"
        findings.add(catalogue.XATTR_LIMIT, text, ino=ino)
