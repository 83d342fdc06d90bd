"""Translate API field names in errors to the option the user typed.

Owns: the mapping from an API field to an option or positional argument of a verb.
Does not: know any verb. Options store their values under the names of the fields; `_KEPT` has
the exceptions.
"""

from __future__ import annotations

import argparse
import re

from overlay.errors import UsageError

# Where an option stores a field's value under another name; the closest match first.
_KEPT = {
    "block_length": ("block_size",),
    "expires_s": ("expires",),
    "from": ("sources",),
    "gateway": ("gateways",),
    "ip": ("ips",),
    "ip_range": ("ranges",),
    "network": ("name",),
    "passphrase": ("passphrase_file",),
    "password": ("password_file",),
    "ports": ("publish",),
    "rate_in": ("rate",),
    "rate_out": ("rate",),
    "sealed": ("file",),
    "subnet": ("subnets",),
    "to": ("destinations",),
    "token": ("token_file",),
}
_FIELD = re.compile(r"[a-z]+(?:_[a-z]+)+")


def with_typed_names(error: UsageError, args: argparse.Namespace) -> UsageError:
    """Return the error with typed options in place of the API's fields.

    The error of a field begins with its option. Elsewhere in a text only a word with an
    underscore counts as a field: `name` and `ip` are ordinary words.
    """
    word = _word(error.field, args)
    what = error.what
    if word and re.match(rf"{re.escape(error.field)}\b", what):
        what = word + what[len(error.field) :]
    elif word:
        what = f"{word}: {what}"
    texts = (what, error.why, error.hint)
    what, why, hint = (_FIELD.sub(lambda m: _word(m[0], args) or m[0], text) for text in texts)
    return type(error)(what, why=why, hint=hint, field=error.field)


def _word(field: str, args: argparse.Namespace) -> str:
    """Return the option or argument of a field, preferring one that was typed; or empty."""
    actions = {each.dest: each for each in args.verb_parser._actions}  # noqa: SLF001  as in man
    known = [actions[dest] for dest in (field, *_KEPT.get(field, ())) if dest in actions]
    typed = [each for each in known if getattr(args, each.dest, None) != each.default]
    return next((_spelled(each) for each in typed or known), "")


def _spelled(action: argparse.Action) -> str:
    if action.option_strings:
        return max(action.option_strings, key=len)
    return str(action.metavar or action.dest)
