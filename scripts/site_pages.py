"""Pages of the documentation site that are made from other sources: a hook of mkdocs.

The home page is the README; the reference is made from the command line's parser, the configuration
file, the API's document, the metrics and the classes of errors, so that it cannot say something
else than the program does.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File
from overlay.agent.process.event_kinds import EVENT_KINDS
from overlay.cli import examples
from overlay.cli import parser as command_line
from overlay.errors import ERROR_BY_CODE
from scripts.api_page import api_page, document_text
from scripts.metrics_page import metrics_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of the folder `docs`."""
    pages = {
        "index.md": home_page(),
        "CONTRIBUTING.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        **example_pages(),
        "reference/api.md": api_page(),
        "reference/commands.md": commands_page(),
        "reference/configuration.md": configuration_page(),
        "reference/events.md": events_page(),
        "reference/exit-codes.md": exit_codes_page(),
        "reference/metrics.md": metrics_page(),
        "reference/openapi.json": document_text(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def home_page() -> str:
    """Return the README with its links as they are from the folder `docs`."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/adr)", "](adr/0001-logs-in-signed-segments.md)")
    text = text.replace("](examples/README.md)", "](examples/index.md)")
    text = re.sub(r"\]\(examples/([\w-]+)/README\.md\)", r"](examples/\1.md)", text)
    return text.replace("](docs/", "](").replace("[LICENSE](LICENSE)", "the file `LICENSE`")


def example_pages() -> dict[str, str]:
    """Return the page of each example, with its links as they are from `docs/examples`."""
    pages = {}
    for readme in sorted((ROOT / "examples").glob("**/README.md")):
        folder = readme.parent.relative_to(ROOT / "examples")
        name = "index" if folder == Path() else str(folder)
        text = readme.read_text(encoding="utf-8")
        text = re.sub(r"\]\((?:\.\./)*docs/", "](../", text)
        text = re.sub(r"\]\((?:\.\./)?([\w-]+)/README\.md\)", r"](\1.md)", text)
        pages[f"examples/{name}.md"] = text
    return pages


def link_targets(text: str) -> str:
    """Return a page of `docs` with its links to examples as they are on the site."""
    return re.sub(r"\]\(\.\./\.\./examples/([\w-]+)/README\.md\)", r"](../examples/\1.md)", text)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let the pages of `docs` link to those that are made here."""
    return link_targets(markdown)


def commands_page() -> str:
    """Return a section for each command, with its arguments, options and description."""
    parser = command_line.build()
    lines = ["# Commands", "", "Options of every command, before its name:", ""]
    lines += [*_option_rows(parser), ""]
    for path, child in _commands(parser, "overlayd"):
        lines += [f"## {path}", ""]
        lines += ["```", child.format_usage().removeprefix("usage: ").rstrip(), "```", ""]
        lines += [*_description(child), "", *_argument_rows(child), *_option_rows(child), ""]
        shown = examples.of_command(path)
        lines += ["```", *shown, "```", ""] if shown else []
    return "\n".join(lines)


def configuration_page() -> str:
    """Return the commented configuration file that packages install."""
    text = (ROOT / "deploy/overlayd.toml").read_text(encoding="utf-8")
    return f"# Configuration\n\n```toml\n{text}```\n"


def events_page() -> str:
    """Return the kinds of events, and what each says."""
    rows = [f"| `{kind}` | {meaning} |" for kind, meaning in EVENT_KINDS.items()]
    text = (
        "`overlayd events` shows the latest 10,000, also those of former agents of this host; "
        "`--follow` keeps printing new ones, `--kind KIND` selects, and `--json` prints one object "
        "a line with `time`, `kind`, `level` (`info`, `warning`, `error`), `text`, and where they "
        "apply `network`, `endpoint` and `peer`."
    )
    return "\n".join(["# Events", "", text, "", "| kind | meaning |", "|---|---|", *rows, ""])


def exit_codes_page() -> str:
    """Return the exit code of each kind of error, and its status and code in the API."""
    rows = [
        "| exit code | API | code | meaning |",
        "|---|---|---|---|",
        "| 0 | 200 | | It worked. |",
    ]
    for kind in sorted(ERROR_BY_CODE.values(), key=lambda each: each.exit_code):
        meaning = (inspect.getdoc(kind) or "").splitlines()[0]
        rows.append(f"| {kind.exit_code} | {kind.http_status} | `{kind.code}` | {meaning} |")
    return "\n".join(["# Exit codes and errors", "", *rows, ""])


def _commands(
    parser: argparse.ArgumentParser, path: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command that takes no further word, with its full name."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]  # noqa: SLF001 - argparse has no public way
    if not below:
        yield path, parser
    for action in below:
        for word, child in action.choices.items():
            yield from _commands(child, f"{path} {word}")


def _description(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the description; what is indented there is a block of commands."""
    fenced = False
    for line in (parser.description or "").rstrip().splitlines():
        if line.startswith("  ") != fenced and line:
            fenced = not fenced
            yield from ("", "```") if fenced else ("```", "")
        yield line
    if fenced:
        yield "```"


def _argument_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if not action.option_strings and action.help not in (None, argparse.SUPPRESS):
            yield f"- `{action.metavar or action.dest}`: {_text(action)}"


def _option_rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - as above
        if not action.option_strings or action.help == argparse.SUPPRESS:
            continue
        value = str(
            action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
        )
        flags = ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")
        yield f"- `{flags}`: {_text(action)}"


def _text(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%").replace("<", "&lt;")
