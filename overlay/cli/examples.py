"""Two or more examples for the help of each command.

Owns: the examples of commands whose description has none. Does not: know any parser.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "leave": (
        "sudo overlayd leave",
        "sudo overlayd leave --force        # also as the last holder of the authority",
    ),
    "members": (
        "overlayd members --wide",
        "overlayd members --watch",
        "overlayd members --format 'table {{.Name}}\\t{{.State}}'",
    ),
    "forget": (
        "sudo overlayd forget vm3           # it is gone for good; its addresses come back",
        "sudo overlayd forget --ban vm3     # it is no longer trusted: excluded for good",
    ),
    "token show": (
        "sudo overlayd token show",
        "ssh vm1 sudo overlayd token show | sudo overlayd join 192.168.56.11 --token-file -",
    ),
    "token create": (
        "sudo overlayd token create --expires 24h --uses 3 --label rack7",
        "sudo overlayd token create --uses 1 > /root/token    # for one host",
    ),
    "token ls": (
        "sudo overlayd token ls",
        "sudo overlayd token ls --json",
    ),
    "token revoke": (
        "sudo overlayd token revoke 1e1a62ac",
        "sudo overlayd token revoke 1e1a    # the beginning of an id is enough",
    ),
    "promote": (
        "sudo overlayd promote vm2",
        "sudo overlayd promote n-a1fdda91",
    ),
    "authority ls": (
        "overlayd authority ls",
        "overlayd authority ls --json",
    ),
    "authority import": (
        "sudo overlayd authority import /root/authority.json",
        "sudo overlayd authority import /root/authority.json --passphrase-file /root/passphrase",
    ),
    "key rotate": (
        "sudo overlayd key rotate",
        "sudo overlayd key rotate --json",
    ),
    "key status": (
        "overlayd key status",
        "overlayd key status --json",
    ),
    "network ls": (
        "overlayd network ls",
        "overlayd network ls --filter label=team=a --filter driver=overlay",
        "overlayd network ls --format '{{.Name}} {{.Subnets.Subnet}}'",
    ),
    "network inspect": (
        "overlayd network inspect blue",
        "overlayd network inspect blue --json",
    ),
    "network rm": (
        "sudo overlayd network rm blue",
        "sudo overlayd network rm blue red",
    ),
    "network prune": (
        "overlayd network prune             # which networks nobody uses",
        "sudo overlayd network prune --force --filter label=team=a",
    ),
    "network connect": (
        "sudo overlayd network connect blue web",
        "sudo overlayd network connect --ip 10.32.0.50 --alias www blue docker:web",
    ),
    "network disconnect": (
        "sudo overlayd network disconnect blue web",
        "sudo overlayd network disconnect blue docker:web",
    ),
    "service ls": (
        "overlayd service ls",
        "overlayd service ls --filter network=blue --format '{{.Name}} {{.Ips}}'",
    ),
    "service inspect": (
        "overlayd service inspect web",
        "overlayd service inspect web --json",
    ),
    "service ps": (
        "overlayd service ps web",
        "overlayd service ps web --quiet",
    ),
    "service rm": (
        "sudo overlayd service rm web",
        "sudo overlayd service rm web api",
    ),
    "policy ls": (
        "overlayd policy ls",
        "overlayd policy ls --filter network=blue --format '{{.Name}} {{.Action}} {{.Ports}}'",
    ),
    "policy inspect": (
        "overlayd policy inspect db",
        "overlayd policy inspect db --json",
    ),
    "policy rm": (
        "sudo overlayd policy rm db",
        "sudo overlayd policy rm db no-mail",
    ),
    "router ls": (
        "overlayd router ls",
        "overlayd router ls --format '{{.Name}} {{.Networks}}'",
    ),
    "router inspect": (
        "overlayd router inspect r1",
        "overlayd router inspect r1 --json",
    ),
    "router rm": (
        "sudo overlayd router rm r1",
        "sudo overlayd router rm r1 r2",
    ),
    "dns rm": (
        "sudo overlayd dns rm database --network blue",
        "sudo overlayd dns rm database --network blue --json",
    ),
    "dns ls": (
        "overlayd dns ls",
        "overlayd dns ls blue",
    ),
    "detach": (
        "sudo overlayd detach web --network blue",
        "sudo overlayd detach pid:4242      # from all its networks",
    ),
    "endpoint ls": (
        "overlayd endpoint ls --wide",
        "overlayd endpoint ls --filter node=vm1 --filter label=team",
    ),
    "container exec": (
        "sudo overlayd container exec web -- ping -c 3 c1",
        "sudo overlayd container exec web sh",
    ),
    "container ls": (
        "overlayd container ls",
        "overlayd container ls --json",
    ),
    "container rm": (
        "sudo overlayd container rm web",
        "sudo overlayd container rm web api",
    ),
    "expose": (
        "sudo overlayd expose blue",
        "sudo overlayd expose blue --json",
    ),
    "unexpose": (
        "sudo overlayd unexpose blue        # until the next `expose`",
        "sudo overlayd unexpose blue --json",
    ),
    "status": (
        "overlayd status",
        "overlayd status --check            # exit 4 if anything is wrong",
        "overlayd status --wait",
    ),
    "verify": (
        "overlayd verify",
        "sudo overlayd verify --repair",
    ),
    "metrics": (
        "overlayd metrics",
        "overlayd metrics | grep path_up",
    ),
    "events": (
        "overlayd events --since 10m",
        "overlayd events --kind member --kind path",
        "overlayd events --follow --json",
    ),
    "doctor": (
        "sudo overlayd doctor",
        "sudo overlayd doctor --json",
    ),
    "report": (
        "sudo overlayd report -o /root/vm1.tar.gz",
        "sudo overlayd report -o - > /root/vm1.tar.gz",
    ),
    "config check": (
        "overlayd config check",
        "overlayd config check ./new.toml   # before it is installed",
    ),
    "config show": (
        "overlayd config show",
        "overlayd config show --json",
    ),
    "web": (
        "sudo overlayd web",
        "sudo overlayd web --listen 192.168.56.11:7950 --token-file /etc/overlayd/web.token",
    ),
    "reset": (
        "sudo overlayd reset",
        "sudo overlayd reset --yes          # also while this host is a member",
    ),
    "agent": (
        "sudo overlayd agent",
        "sudo overlayd agent --config /etc/overlayd/overlayd.toml",
    ),
    "completion": (
        "overlayd completion bash > /etc/bash_completion.d/overlayd",
        "overlayd completion fish > ~/.config/fish/completions/overlayd.fish",
    ),
    "man": (
        "overlayd man | man -l -",
        "overlayd man > /usr/local/share/man/man8/overlayd.8",
    ),
    "version": (
        "overlayd version",
        "overlayd --version",
    ),
}


def of_command(prog: str) -> tuple[str, ...]:
    """Return the examples of a command, named as in its usage: `overlayd network ls`."""
    return EXAMPLES.get(prog.removeprefix("overlayd "), ())
