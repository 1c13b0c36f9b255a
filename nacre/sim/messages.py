"""What travels over simulated streams besides Draft, Commit and Reanchor, and how a transcript shows it.

These stand in for the wire's Open, Join, Opened, Cancel and Finished, with the fields that matter to the machines.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacre.session import Commit, Draft, FinishReason, Reanchor, Received, VerifyPlan


@dataclass(frozen=True, slots=True)
class Open:
    """An owner begins a session, or goes on with one that another verifier had begun.

    `unseen` counts prompt tokens that stand before `prompt`: they only cost rows, nobody needs to know them.
    """

    session: str
    prompt: tuple[int, ...]
    resume: tuple[int, ...]
    max_tokens: int
    stop_ids: frozenset[int]
    keep_choices: bool
    unseen: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """A drafter joins, or an owner comes back. `position`: committed tokens the sender has; 0 for a new drafter."""

    ticket: str
    owner: bool
    position: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Answer to Open and to a new drafter's Join. `tokens` is empty for an owner."""

    ticket: str
    tokens: tuple[int, ...]
    prompt_length: int
    end_position: int
    window_nodes: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The owner wants no more."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last word on a session; `position` is its final length."""

    reason: FinishReason
    position: int


def draft_bytes(draft: Draft, token_bytes: int = 2) -> int:
    """Payload of a draft: its size as a protobuf message, where a token id takes `token_bytes`.

    A guess is its id and eight bits more: three bytes together for ids from 64 to 8,191.
    """
    size = _packed(len(draft.tokens) * (token_bytes + 1)) + (2 if draft.first_node == 1 else 0)
    if draft.anchor is not None:
        size += 1 + _varint(draft.anchor)
    if draft.parents:
        size += _packed(sum(map(_varint, draft.parents)))
    return size


def commit_bytes(commit: Commit, token_bytes: int = 2) -> int:
    """Payload of a commit without log-probabilities."""
    size = 1 + _varint(commit.position) + _packed(len(commit.tokens) * token_bytes)
    if any(commit.guessed_by):
        size += _packed(len(commit.guessed_by))
    for value in (commit.rows, commit.window_nodes, commit.row_budget):
        size += 1 + _varint(value) if value else 0
    for milliseconds in (commit.verify_ms, commit.queue_ms):
        size += 5 if milliseconds else 0
    return size


def payload_bytes(message: object) -> int:
    """About what a message carries; prompts and texts at two bytes a token, the rest is small."""
    match message:
        case Draft():
            return draft_bytes(message)
        case Commit():
            return commit_bytes(message)
        case Open():
            return 2 * (message.unseen + len(message.prompt) + len(message.resume))
        case Opened():
            return 2 * len(message.tokens)
        case _:
            return 0


def _varint(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)


def _packed(content: int) -> int:
    return 1 + _varint(content) + content if content else 0


def describe(message: object) -> str:
    """One line for a transcript, of a message or of what a verifier does."""
    match message:
        case Draft():
            below = "" if message.anchor is None else f" anchor {message.anchor}"
            parents = f" parents {_list(message.parents)}" if message.parents else ""
            return f"Draft from {message.first_node}{below}{parents}: {_list(message.tokens)}"
        case Commit():
            credit = f" by {_list(message.guessed_by)}" if any(message.guessed_by) else ""
            return f"Commit at {message.position}: {_list(message.tokens)}{credit}"
        case Reanchor():
            return f"Reanchor at {message.position}"
        case Open():
            resume = f" resume {_list(message.resume)}" if message.resume else ""
            return f"Open prompt {_list(message.prompt)}{resume}"
        case Join():
            return f"Join as {'owner' if message.owner else 'drafter'} at {message.position}"
        case Opened():
            return f"Opened with {len(message.tokens)} tokens" if message.tokens else "Opened"
        case Received():
            fates = {"live": message.live, "late but right": message.late, "dead": message.dead}
            return ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
        case VerifyPlan():
            if len(message.tokens) == 1:
                return "plans the tip alone"
            rows = range(1, len(message.tokens))
            return f"plans the tip and {', '.join(_list(message.ancestors(row)) for row in rows)}"
        case Finished():
            return f"Finished {message.reason.value} at {message.position}"
        case _:
            return type(message).__name__


def _list(values: tuple[int, ...]) -> str:
    return " ".join(str(value) for value in values)
