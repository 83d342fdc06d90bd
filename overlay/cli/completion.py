"""Completion scripts for bash, zsh and fish, generated from the parser.

Owns: the walk over argparse's tree, and the three scripts. Names that depend on the cluster
(networks, containers, nodes) are requested from the agent during completion; an argument's
METAVAR determines their kind.
Does not: know any verb by name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from overlay.target_kinds import KINDS as KINDS_OF_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.client.api import ApiClient

# METAVAR -> kind of words. The shell completes "files" itself, the agent supplies the others.
KINDS = {
    "FILE": "files",
    "DIR": "files",
    "NETWORK": "networks",
    "WHERE": "places",
    "NODE": "nodes",
    "TARGET": "targets",
    "ENDPOINT": "endpoints",
    "CONTAINER": "containers",
    "ID": "tokens",
}


class Option(NamedTuple):
    """One option of a verb."""

    flags: tuple[str, ...]
    help: str
    takes_value: bool
    words: tuple[str, ...]  # the allowed values, if they are fixed
    kind: str  # otherwise the kind of its values, or empty


class Command(NamedTuple):
    """One verb, or a word that groups verbs."""

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    verbs: tuple[tuple[str, str], ...]  # (word, help)
    words: tuple[str, ...]  # fixed words allowed as arguments
    kind: str  # kind of the arguments, or empty


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = (), summary: str = ""
) -> Iterator[Command]:
    """Yield the parser's commands, each before its subcommands."""
    options: list[Option] = []
    verbs: dict[str, str] = {}
    below: dict[str, argparse.ArgumentParser] = {}
    words: tuple[str, ...] = ()
    kind = ""
    for action in parser._actions:  # noqa: SLF001  argparse has no public way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            verbs = {
                entry.dest: entry.help or ""
                for entry in action._choices_actions  # noqa: SLF001
            }
            below = dict(action.choices)
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            options.append(_option(action))
        else:
            words = words or _fixed(action)
            kind = kind or _kind(action)
    yield Command(path, summary, tuple(options), tuple(verbs.items()), words, kind)
    for word, child in below.items():
        yield from commands(child, (*path, word), verbs.get(word, ""))


def _option(action: argparse.Action) -> Option:
    return Option(
        flags=tuple(action.option_strings),
        help=_plain(action.help or ""),
        takes_value=action.nargs != 0,
        words=_fixed(action),
        kind=_kind(action),
    )


def _fixed(action: argparse.Action) -> tuple[str, ...]:
    return tuple(str(choice) for choice in action.choices or ())


def _kind(action: argparse.Action) -> str:
    return KINDS.get(str(action.metavar or ""), "")


def _plain(text: str) -> str:
    return text.replace("%%", "%").replace("\n", " ")


def live_candidates(client: ApiClient, kind: str) -> list[str]:
    """Return the names of a kind that the agent knows; raises OverlayError if it fails."""
    match kind:
        case "networks":
            return sorted(item["name"] for item in client.get("/v1/networks")["networks"])
        case "places":
            shared = [f"container:{name}" for name in live_candidates(client, "containers")]
            return [*live_candidates(client, "networks"), "none", "host", *shared]
        case "nodes":
            return sorted(item["name"] for item in client.get("/v1/members")["members"])
        case "containers":
            return sorted(item["name"] for item in client.get("/v1/containers")["containers"])
        case "tokens":
            listed = client.get("/v1/tokens")["tokens"]
            return sorted(item["id"][:8] for item in listed if item["state"] == "valid")
        case "endpoints":
            return sorted(item["name"] for item in client.get("/v1/endpoints")["endpoints"])
        case "targets":
            here = client.get("/v1/endpoints")["endpoints"]
            names = {item["target"] for item in here if item.get("target")}
            names |= {item["name"] for item in client.get("/v1/containers")["containers"]}
            return [*sorted(names), *(f"{kind.word}:" for kind in KINDS_OF_TARGETS)]
    return []


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script for `shell`: bash, zsh or fish."""
    tree = list(commands(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](tree)


# The bash script has one `case` per question: which verbs and options there are, which option
# takes a value, and which kind the arguments have. Words that match a verb form the path.
_BASH = """\
# bash completion for overlayd, generated by `overlayd completion bash`.
_overlayd_live() {{ overlayd completion bash --words "$1" 2>/dev/null; }}
_overlayd_verbs() {{
  case "$1" in
{verbs}
  esac
}}
_overlayd_options() {{
  case "$1" in
{options}
  esac
}}
_overlayd_values() {{
  case "$1" in
{values}
    *) return 1 ;;
  esac
}}
_overlayd_arguments() {{
  case "$1" in
{arguments}
  esac
}}
_overlayd() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
  local path="" word skip="" i found
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    if [[ -n $skip ]]; then skip=""; continue; fi
    if [[ $word == -* ]]; then
      _overlayd_values "$path $word" >/dev/null && skip=1
      continue
    fi
    [[ " $(_overlayd_verbs "$path") " == *" $word "* ]] && path="${{path:+$path }}$word"
  done
  if [[ $before == -* ]] && found="$(_overlayd_values "$path $before")"; then
    :
  elif [[ $current == -* ]]; then
    found="$(_overlayd_options "$path")"
  else
    found="$(_overlayd_verbs "$path") $(_overlayd_arguments "$path")"
  fi
  if [[ $found == *@files* ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
    return
  fi
  mapfile -t COMPREPLY < <(compgen -W "$found" -- "$current")
}}
complete -F _overlayd overlayd"""


def _bash(tree: list[Command]) -> str:
    def case(pattern: str, words: str) -> str:
        return f'    "{pattern}") echo "{words}" ;;'

    verbs, options, values, arguments = [], [], [], []
    for command in tree:
        path = " ".join(command.path)
        if command.verbs:
            verbs.append(case(path, " ".join(word for word, _ in command.verbs)))
        flags = " ".join(flag for option in command.options for flag in option.flags)
        options.append(case(path, flags))
        for option in command.options:
            if option.takes_value:
                found = _bash_words(option.words, option.kind)
                values += [case(f"{path} {flag}", found) for flag in option.flags]
        found = _bash_words(command.words, command.kind)
        if found:
            arguments.append(case(path, found))
    return _BASH.format(
        verbs="\n".join(verbs),
        options="\n".join(options),
        values="\n".join(values),
        arguments="\n".join(arguments),
    )


def _bash_words(words: tuple[str, ...], kind: str) -> str:
    if words:
        return " ".join(words)
    if kind == "files":
        return "@files"
    return f"$(_overlayd_live {kind})" if kind else ""


# zsh: `_arguments` per command; a command with verbs describes them and calls their functions.
_ZSH = """\
#compdef overlayd
# zsh completion for overlayd, generated by `overlayd completion zsh`.
_overlayd_live() {{
  local -a found
  found=(${{(f)"$(overlayd completion zsh --words $1 2>/dev/null)"}})
  compadd -a found
}}
{functions}
if [[ $funcstack[1] == _overlayd ]]; then
  _overlayd "$@"
else
  compdef _overlayd overlayd
fi"""


def _zsh(tree: list[Command]) -> str:
    return _ZSH.format(functions="\n".join(_zsh_function(command) for command in tree))


def _zsh_function(command: Command) -> str:
    name = "_".join(("_overlayd", *command.path))
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    lines = [f"{name}() {{"]
    if command.verbs:
        words = " ".join(_quoted(f"{word}:{_zsh_text(text)}") for word, text in command.verbs)
        calls = "\n".join(f"      {word}) {name}_{word} ;;" for word, _ in command.verbs)
        specs += ["'1: :->verb'", "'*:: :->rest'"]
        lines += [
            "  local state line",
            "  local -A opt_args",
            f"  _arguments -C {' '.join(specs)}",
            '  case "$state" in',
            f"    verb) local -a verbs=({words}); _describe verb verbs ;;",
            '    rest) case "$line[1]" in',
            calls,
            "    esac ;;",
            "  esac",
        ]
    else:
        specs.append(_quoted(f"*: :{_zsh_words(command.words, command.kind)}"))
        lines.append(f"  _arguments {' '.join(specs)}")
    return "\n".join([*lines, "}"])


def _zsh_option(option: Option) -> Iterator[str]:
    for flag in option.flags:
        value = f":value:{_zsh_words(option.words, option.kind)}" if option.takes_value else ""
        yield _quoted(f"*{flag}[{_zsh_text(option.help)}]{value}")


def _zsh_words(words: tuple[str, ...], kind: str) -> str:
    if words:
        return f"({' '.join(words)})"
    if kind == "files":
        return "_files"
    return f"_overlayd_live {kind}" if kind else " "


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


# fish: one `complete` per word; `__overlayd_at` tests whether the line has exactly these verbs.
_FISH = """\
# fish completion for overlayd, generated by `overlayd completion fish`.
function __overlayd_at
  set -l words (commandline -opc)
  set -l path
  set -l skip 0
  for word in $words[2..-1]
    if test $skip -eq 1
      set skip 0
    else if string match -q -- '-*' $word
      contains -- $word {valued}; and set skip 1
    else if contains -- (string join ' ' -- $path $word) {paths}
      set -a path $word
    end
  end
  test "$path" = "$argv"
end
function __overlayd_live
  overlayd completion fish --words $argv[1] 2>/dev/null
end
complete -c overlayd -f
{lines}"""


def _fish(tree: list[Command]) -> str:
    lines: list[str] = []
    for command in tree:
        at = f"complete -c overlayd -n {_quoted(' '.join(('__overlayd_at', *command.path)))}"
        lines += [f"{at} -a {word} -d {_quoted(text)}" for word, text in command.verbs]
        found = _fish_words(command.words, command.kind)
        if found:
            lines.append(f"{at} {found}")
        for option in command.options:
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in option.flags
            )
            value = f" -r {_fish_words(option.words, option.kind)}" if option.takes_value else ""
            lines.append(f"{at} {flags} -d {_quoted(option.help)}{value}".rstrip())
    valued = sorted(
        {f for command in tree for o in command.options if o.takes_value for f in o.flags}
    )
    paths = [_quoted(" ".join(command.path)) for command in tree if command.path]
    return _FISH.format(valued=" ".join(valued), paths=" ".join(paths), lines="\n".join(lines))


def _fish_words(words: tuple[str, ...], kind: str) -> str:
    if words:
        return f"-a {_quoted(' '.join(words))}"
    if kind == "files":
        return "-F"
    return f"-a {_quoted(f'(__overlayd_live {kind})')}" if kind else ""


def _quoted(text: str) -> str:
    """Return `text` in single quotes, as all three shells read it."""
    return "'" + text.replace("'", "'\\''") + "'"
