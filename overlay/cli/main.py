"""The entry point: from a command line to an exit code.

Owns: which verb runs, and how every error is reported (exit codes: `overlay.errors`).
Does not: know what verbs do. Start-up must be quick: import nothing that only some verbs need.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130  # 128 + SIGINT, as shells count
try:
    import errno
    import os

    from overlay.cli import familiar_words, output, parser, streams
    from overlay.client.paths import paths_of
    from overlay.errors import ConfigurationError, OverlayError, UsageError
    from overlay.strict_arguments import with_command_apart
except KeyboardInterrupt:  # Ctrl-C before anything has begun
    sys.exit(INTERRUPTED)

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Sequence

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a process of its own may end before."""
    if argv is not None:
        return _code_of(argv)
    streams.prepare()
    code = _code_of(sys.argv[1:])
    if "threading" not in sys.modules:  # what has no threads leaves nothing for later
        _end(code)
    return code


def _end(code: int) -> None:
    """End the process at once: to take the interpreter apart takes 6 of a command's 47 ms."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter reports it, as it does for other programs
    os._exit(code)


def _code_of(argv: Sequence[str]) -> int:
    typed = familiar_words.translated(list(argv))
    words = with_command_apart(typed, parser.COMMAND_VERB, parser.GLOBAL_OPTIONS)
    try:
        code = _run(words)
        sys.stdout.flush()
    except OverlayError as error:
        output.report(error)
        if _wants_json(words):
            verb, _ = parser.first_word(words)
            is_stream = verb in parser.STREAMS or not {"--follow", "--watch"}.isdisjoint(words)
            write = output.print_json_line if is_stream else output.print_json
            write(output.error_object(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; keep the interpreter's last flush
        # from failing on it.
        _discard_stdout()
        return 0
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        _discard_stdout()
        output.report(_write_error(error))
        return OverlayError.exit_code
    return code


def _discard_stdout() -> None:
    """Redirect the rest of the output to /dev/null."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_error(error: OSError) -> OverlayError:
    return OverlayError(
        "cannot write the answer",
        why=error.strerror or str(error),
        hint="The command may still have taken effect; check the target of stdout",
    )


def _run(words: list[str]) -> int:
    verb, rest = parser.first_word(words)
    if verb in parser.DELEGATED:
        import importlib  # noqa: PLC0415  parser needs it only for other verbs

        module = importlib.import_module(parser.DELEGATED[verb])
        return int(module.main(rest) or 0)
    if verb != "container" and any(parser.TOKEN_PREFIX in word for word in words):
        from overlay.cli import token_input  # noqa: PLC0415  only an error needs it

        token_input.refuse_token_argument()  # before an error repeats it
    familiar_words.refuse_impossible([verb or "", *rest])
    try:
        args, unknown = parser.build(words).parse_known_args(words)
    except SystemExit as leaving:  # raised after --help has printed
        return int(leaving.code or 0)
    if unknown:  # reported by the verb's own parser, which shows that verb's usage
        args.verb_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.paths = paths_of(args, os.environ)
    try:
        if getattr(args, "watch", False):
            from overlay.cli.screen.watch import watch  # noqa: PLC0415  rarely needed

            return watch(lambda: args.run(args), as_json=args.json)
        return int(args.run(args) or 0)
    except ConfigurationError:
        raise
    except UsageError as error:
        from overlay.cli import field_names  # noqa: PLC0415  only an error needs it

        raise field_names.with_typed_names(error, args) from error


def _wants_json(words: Sequence[str]) -> bool:
    return "--json" in words[: words.index("--") if "--" in words else None]


if __name__ == "__main__":
    sys.exit(main())
