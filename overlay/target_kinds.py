"""The kinds of targets that attach, detach and others accept: one table for all that names them.

Owns: the words before the colon of a target, and what help, completion, errors and guide say of
each. Does not: look for a container (`agent/runtimes`).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from typing import Final


class TargetKind:
    """One kind of target, written `WORD:ARGUMENT`.

    `listing` is the command that lists what there is, `start` the one that starts it, without its
    name. `own_network`: how such a container gets a network namespace of its own. `comes_back`:
    after its end, under the same id or name. `looked_up`: for a target that is only a name. `noun`
    follows the runtime's name.
    """

    def __init__(
        self,
        word: str,
        argument: str,
        summary: str,
        listing: str,
        own_network: str,
        start: str = "",
        *,
        comes_back: bool = True,
        looked_up: bool = True,
        noun: str = "container",
    ) -> None:
        self.word = word
        self.argument = argument
        self.summary = summary
        self.listing = listing
        self.own_network = own_network
        self.start = start
        self.comes_back = comes_back
        self.looked_up = looked_up
        self.noun = noun

    @property
    def form(self) -> str:
        """Return how a target of this kind is written, such as `docker:NAME`."""
        return f"{self.word}:{self.argument}"


KINDS: Final = (
    TargetKind(
        "netns", "NAME", "a network namespace under /run/netns, as `ip netns` lists it",
        "ip netns list", "", comes_back=False,
    ),
    TargetKind(
        "pid", "N", "the network namespace of a process", "ps -e", "Start the process with "
        "'unshare --net' or 'ip netns exec'", comes_back=False, looked_up=False,
    ),
    TargetKind(
        "docker", "NAME", "a Docker container, by name or id", "docker ps",
        "Start the container with a network of its own, such as --network none", "docker start",
    ),
    TargetKind(
        "podman", "NAME", "a Podman container, by name or id", "podman ps",
        "Start the container with a network of its own, such as --network none", "podman start",
    ),
    TargetKind(
        "nerdctl", "NAME", "a container of nerdctl, by name or id", "nerdctl ps",
        "Start the container with a network of its own, such as --network none", "nerdctl start",
    ),
    TargetKind(
        "containerd", "ID", "a container of containerd; NAMESPACE/ID in another namespace",
        "ctr --namespace NAMESPACE tasks ls", "Start it without --net-host",
        "ctr tasks start --detach", looked_up=False,
    ),
    TargetKind(
        "lxc", "NAME", "an LXC container", "lxc-ls --fancy",
        "Give it one in its configuration: lxc.net.0.type = empty", "lxc-start",
    ),
    TargetKind(
        "incus", "NAME", "an Incus container; PROJECT/NAME in another project", "incus list",
        "Start the container without raw.lxc settings that keep the host's network", "incus start",
    ),
    TargetKind(
        "systemd-nspawn", "NAME", "a machine of systemd-machined", "machinectl list",
        "Start it with --private-network", "machinectl start", noun="machine",
    ),
    TargetKind(
        "unit", "NAME.service", "a systemd service with PrivateNetwork=yes",
        "systemctl list-units --type service",
        "Add PrivateNetwork=yes to its [Service] section, and restart it", "systemctl start",
        looked_up=False, noun="service",
    ),
)  # fmt: skip
KIND_BY_WORD: Final = {kind.word: kind for kind in KINDS}
RUNTIME_WORDS: Final = tuple(kind.word for kind in KINDS if kind.comes_back)
"""Of the kinds whose containers end and come back, and so are attached again."""
FORMS_TEXT: Final = ", ".join(kind.form for kind in KINDS)


def kind_of(target: str) -> TargetKind | None:
    """Return the kind that a target names, or None for a path, a name, or an unknown word."""
    return KIND_BY_WORD.get(target.partition(":")[0]) if ":" in target else None


def is_path(target: str) -> bool:
    """Return whether a target is the path of a namespace: `kind:a/b` is none."""
    return "/" in target and kind_of(target) is None


def table_text() -> str:
    """Return the kinds with their summaries, one a line, for help."""
    width = max(len(kind.form) for kind in KINDS) + 2
    rows = [(kind.form, kind.summary) for kind in KINDS]
    rows.append(("/PATH", "such as /run/netns/x or /proc/4242/ns/net"))
    words = [kind.word for kind in KINDS if not kind.looked_up]
    others = f"{', '.join(words[:-1])} and {words[-1]}"
    rows.append(("NAME", f"looked up among all but {others}; an error if several match"))
    return "\n".join(f"  {form:<{width}}{summary}" for form, summary in rows)
