"""Conversation trees with ranked replies, one tree per row (the Open-Assistant export).

Every user turn with assistant replies gives one prompt (the whole conversation so far). Its ranked replies
are one ranking; a reply without a rank, or the only one, is a completion without a vote. A deleted or
refused message goes, and all that was said after it.
"""

from collections.abc import Iterator
from typing import Any

from palate.data.formats_item import ROLES, Answer, BadRow, Item, Judgement, Row, as_text, first, missing
from palate.data.formats_votes import grouped, number
from palate.data.records import Message

MOST = 9  # completions in one comparison


def items(row: Row) -> list[Item]:
    """The items of one tree."""
    root = row["prompt"]
    if ROLES.get(root.get("role", "prompter")) != "user":
        raise BadRow(f"a tree begins with a prompter's turn, this one with {root.get('role')!r}")
    meta = {"tree": row["message_tree_id"]} if "message_tree_id" in row else {}
    group = first(row, "group", "message_tree_id", "tree_id") or root.get("message_id")
    if group is not None:
        meta["group"] = str(group)  # turns of one tree share their beginning: one split
    if not missing(root.get("lang")):
        meta["lang"] = root["lang"]
    return list(_walk(root, (), meta))


def _walk(node: Row, before: tuple[Message, ...], meta: Row) -> Iterator[Item]:
    """Items below `node`, a user turn that follows the messages `before`."""
    if _gone(node):
        return
    prompt = (*before, {"role": "user", "content": as_text(node.get("text"), "a turn")})
    replies = [reply for reply in node.get("replies") or () if _is_answer(reply)]
    if replies:
        yield from _replies(prompt, replies, meta)
    elif not before:
        yield Item(prompt, meta=meta)
    for reply in replies:
        said = (*prompt, {"role": "assistant", "content": reply["text"]})
        for following in reply.get("replies") or ():
            yield from _walk(following, said, meta)


def _replies(prompt: tuple[Message, ...], replies: list[Row], meta: Row) -> Iterator[Item]:
    ranks = {
        place: number(r["rank"], "rank") for place, r in enumerate(replies) if not missing(r.get("rank"))
    }
    best = sorted(ranks, key=lambda place: ranks[place])[:MOST]
    ranked = [replies[place] for place in sorted(best)] if len(best) > 1 else []
    if ranked:
        tiers = grouped({place: number(reply["rank"], "rank") for place, reply in enumerate(ranked)})
        verdict = Judgement(tiers, "tie" if len(tiers) == 1 else "ranked")
        yield Item(prompt, [_answer(reply) for reply in ranked], True, False, [verdict], meta=meta)
    alone = [reply for reply in replies if not any(reply is other for other in ranked)]
    if alone:
        yield Item(prompt, [_answer(reply) for reply in alone], meta=meta)


def _answer(reply: Row) -> Answer:
    model = reply.get("model_name") or ("human" if reply.get("synthetic") is False else "")
    return Answer(
        reply["text"], str(model), meta={"message_id": reply["message_id"]} if "message_id" in reply else {}
    )


def _is_answer(reply: Row) -> bool:
    return not _gone(reply) and ROLES.get(reply.get("role", "assistant")) == "assistant"


def _gone(node: Any) -> bool:
    """Deleted, refused by the reviewers, or without text."""
    return (
        bool(node.get("deleted"))
        or node.get("review_result") is False
        or not str(node.get("text") or "").strip()
    )
