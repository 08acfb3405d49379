"""`deferfs debug journal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deferfs.cli.debug_view import json_option

if TYPE_CHECKING:
    from deferfs.check.log import Transaction
    from deferfs.check.view import View


@click.command("journal", short_help="The transactions in the log.")
@click.argument("image")
@click.option("-v", "verbose", is_flag=True, help="Name every image and revoke.")
@json_option
def command(image: str, verbose: bool, as_json: bool) -> None:
    """Show the log: the transactions that recovery would replay, with their blocks and revokes, and how it ends."""
    from deferfs.check.log import whole_transactions
    from deferfs.check.view import View
    from deferfs.cli.debug_view import opened, time_text
    from deferfs.cli.output import counted, json_path, say, say_json

    with opened(image) as device:
        view = View(device)
        superblock = view.superblock
        found = whole_transactions(view.context())
        kinds = [_kinds(view, transaction) for transaction in found]
    used = sum(transaction.blocks for transaction in found)
    if as_json:
        say_json(
            {
                **json_path("image", image),
                "start": superblock.journal_start,
                "blocks": superblock.journal_blocks,
                "tail": superblock.journal_tail,
                "tail_tid": superblock.tail_tid,
                "used": used,
                "end": _end(view),
                "newest_tid": view.log.newest_tid,
                "transactions": [_json(t, names) for t, names in zip(found, kinds, strict=True)],
            }
        )
        return
    say(f"journal  start={superblock.journal_start} blocks={superblock.journal_blocks}")
    say(f"tail     position={superblock.journal_tail} tid={superblock.tail_tid} used={used}")
    for transaction, names in zip(found, kinds, strict=True):
        summary = ", ".join(f"{names.count(kind)} {kind}" for kind in dict.fromkeys(names))
        when = time_text(transaction.time_ns)
        say(f"tid {transaction.tid}: at {transaction.position}, {counted(transaction.blocks, 'block')}, {when}")
        say(f"  {counted(len(transaction.images), 'image')} ({summary}), {counted(len(transaction.revokes), 'revoke')}")
        if verbose:
            for (home, at), kind in zip(transaction.images, names, strict=True):
                say(f"  image  {home:12} from log block {at}: {kind}")
            for home in transaction.revokes:
                say(f"  revoke {home:12}")
    say(f"end      {_end(view)}")


def _json(transaction: Transaction, kinds: list[str]) -> dict[str, object]:
    images = zip(transaction.images, kinds, strict=True)
    return {
        "tid": transaction.tid,
        "position": transaction.position,
        "blocks": transaction.blocks,
        "time_ns": transaction.time_ns,
        "images": [{"home": home, "log_block": at, "kind": kind} for (home, at), kind in images],
        "revokes": transaction.revokes,
    }


def _end(view: View) -> str:
    """How the log ends."""
    following = view.superblock.tail_tid + view.log.transactions
    if view.log.damaged:
        return f"damaged: transaction {following} is not whole, but {view.log.newest_tid} follows it"
    if view.log.newest_tid == following:
        return f"an interrupted commit of transaction {following}"
    return "empty" if not view.log.transactions else "whole"


def _kinds(view: View, transaction: Transaction) -> list[str]:
    """What each image of a transaction is."""
    from deferfs.cli.debug_kinds import kind_of

    reader = view.context().reader
    return [kind_of(reader.read_raw(at)) for _, at in transaction.images]
