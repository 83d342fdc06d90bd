"""Record commands as they run in a lab, and write them as a picture for the README.

    scripts/recording.py [PICTURE]      as root, with .venv set up; brings a lab up and down

Nothing is made up: each line of the picture is a command that was run, or what it printed.
"""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
OVERLAYD = str(ROOT / ".venv/bin/overlayd")
COMMANDS = [  # the host it is typed on, and the command; the first two need no host
    ("", "overlayd lab up --hosts 3"),
    ("vm1", "overlayd container add web --network blue --alias www"),
    ("vm3", "overlayd container exec c3 -- ping -c 2 web"),
    ("vm2", "overlayd members"),
    ("vm2", "overlayd endpoint ls --network blue"),
    ("vm2", "overlayd status"),
]
COLUMNS, LINE_HEIGHT_PX, CHARACTER_PX, MARGIN_PX = 108, 18, 8.4, 14
SECONDS_PER_COMMAND, SECONDS_PER_LINE = 1.2, 0.06
STYLE = """
text { font: 14px "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre; fill: #d8dee9 }
.typed { fill: #a3be8c }
g { opacity: 0; animation: appear 0.01s linear forwards }
@keyframes appear { to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { g { animation-delay: 0s !important } }
"""


def recorded() -> list[tuple[str, bool]]:
    """Run the commands, and return the lines of the terminal, and which of them were typed."""
    lines: list[tuple[str, bool]] = []
    for host, command in COMMANDS:
        lines.append((f"{host or 'root'}# {command}", True))
        at_host = ["lab", "exec", host, "--", "overlayd"] if host else []
        printed = output([*at_host, *command.split()[1:]])
        lines += [(line[:COLUMNS], False) for line in printed.splitlines()]
        lines.append(("", False))
    return lines


def output(words: list[str]) -> str:
    """Return what overlayd prints."""
    typed = [OVERLAYD, *words]
    merged = subprocess.STDOUT
    return subprocess.run(
        typed, stdout=subprocess.PIPE, stderr=merged, text=True, check=True
    ).stdout


def picture(lines: list[tuple[str, bool]]) -> str:
    """Return the lines as an SVG that shows one after the other."""
    width = round(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX)
    height = len(lines) * LINE_HEIGHT_PX + 2 * MARGIN_PX
    label = "A lab of three hosts: commands, and what they print"
    size = f'viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{label}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#2e3440"/>',
    ]
    at_s = 0.0
    for number, (line, is_typed) in enumerate(lines):
        at_s += SECONDS_PER_COMMAND if is_typed else SECONDS_PER_LINE
        y = MARGIN_PX + (number + 0.8) * LINE_HEIGHT_PX
        kind = ' class="typed"' if is_typed else ""
        parts.append(
            f'<g style="animation-delay: {at_s:.2f}s"><text x="{MARGIN_PX}" y="{y:.0f}"{kind}>'
            f"{html.escape(line)}</text></g>"
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Write the picture, and remove the lab."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/start/lab.svg"
    try:
        target.write_text(picture(recorded()), encoding="utf-8")
    finally:
        subprocess.run([OVERLAYD, "lab", "down"], check=False, capture_output=True)
    print(target)


if __name__ == "__main__":
    main()
