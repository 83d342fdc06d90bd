"""Names in the documents exist: modules, files, tests, make targets, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
LINK = r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)"
README_LINES_MAX = 150
MODULE = r"`((?:agent|cli|core|kernel|lab|sim|wire)/[a-z_/]+?)/?(?:\.py)?`"
FILE = r"`((?:deploy|docs|overlay|scripts|tests|vagrant)/[\w/.-]+)`"


def places(name: str) -> tuple[Path, ...]:
    """Return where a name may be: a folder or module of program or tests."""
    return tuple(
        ROOT / under / f"{name}{suffix}"
        for under in (".", "overlay", "tests")
        for suffix in ("", ".py")
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_modules_and_files_exist(document: Path) -> None:
    """A renamed module or file is renamed in the documents too."""
    text = document.read_text()
    named = set(re.findall(MODULE, text)) | set(re.findall(FILE, text))

    assert {name for name in named if not any(place.exists() for place in places(name))} == set()


def test_documents_and_makefile_know_the_same_targets() -> None:
    """Each `make x` in a document exists; each target is in a document."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    named = set(re.findall(r"(?:`|^)make ([a-z][a-z0-9-]+)\b", text, re.MULTILINE))

    assert named <= targets
    assert targets <= named


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as they are made from their texts."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Each link to a file of this tree, and to a heading in it, leads there."""
    for link in re.findall(LINK, document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_section_is_there_twice(document: Path) -> None:
    """A merge that adds a section on both sides leaves two."""
    sections = re.findall(r"^## .+$", document.read_text(), re.MULTILINE)

    assert len(sections) == len(set(sections))


def test_the_readme_is_short() -> None:
    """It leads to the pages, and does not replace them."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES_MAX
