"""The configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.agent.process.config import Config, load, read
from overlay.errors import UsageError


def test_a_missing_file_means_defaults(tmp_path: Path) -> None:
    """Without a file every key has its default."""
    assert load(tmp_path / "none.toml", required=False) == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A missing file is an error if it was given with --config."""
    with pytest.raises(UsageError, match="no configuration file"):
        load(tmp_path / "none.toml", required=True)


def test_keys_are_read(tmp_path: Path) -> None:
    """Each key of the file is read."""
    path = tmp_path / "overlayd.toml"
    path.write_text(
        'state_dir = "/x"\nreconcile_interval_s = 5\nlog_level = "debug"\n'
        'dns_domain = "Lab.Example."\nmetrics_listen = "127.0.0.1:9469"\nauthority_holders = 5\n'
    )

    config = load(path, required=True)

    assert config.state_dir == Path("/x")
    assert config.reconcile_interval_s == 5.0
    assert config.log_level == "debug"
    assert config.dns_domain == "lab.example"
    assert config.authority_holders == 5
    assert config.metrics_listen == "127.0.0.1:9469"
    assert config.path == path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("log_level = 3", "log_level must be a string"),
        ("api_group_trusted = 1", "api_group_trusted must be true or false"),
        ('log_level = "loud"', "log_level must be debug"),
        ("reconcile_interval_s = 0", "above zero"),
        ("key_rotation_interval_s = -1", "0 or more"),
        ("encryption_rotation_interval_s = -1", "0 or more"),
        ("dead_grace_s = nan", "above zero"),
        ("dead_grace_s = inf", "above zero and at most 1000000000, not inf"),
        ("dead_grace_s = 1e10", "at most 1000000000"),
        (f"dead_grace_s = 1{400 * '0'}", "at most 1000000000"),
        ('state_dir = "var"', "state_dir must be a path from the root, not 'var'"),
        ('run_dir = "~/run"', "run_dir must be a path from the root"),
        ('state_dir = ""', "state_dir must be a path from the root"),
        ('state_dir = "/x\\u0000"', "no path has a zero byte"),
        ("authority_holders = 0", "from 1 to 8, not 0"),
        ("authority_holders = 9", "from 1 to 8, not 9"),
        ("authority_holders = true", "a number from 1 to 8"),
        ("authority_holders = 2.5", "a number from 1 to 8"),
        ('reconcile_interval_s = "soon"', "a number of seconds"),
        ('dns_domain = "a b"', "dns_domain must be a domain"),
        ('dns_domain = ""', "dns_domain must be a domain"),
        ('metrics_listen = "9469"', "metrics_listen must be an IP address and a port, not '9469'"),
        ('cluster_ports = "80-"', "cluster_ports must be ports and ranges of ports, not '80-'"),
        ('cluster_ports = "90-80"', "cluster_ports must be"),
        ('cluster_ports = "0"', "cluster_ports must be"),
        ('cluster_ports = "http"', "cluster_ports must be"),
        ('metrics_listen = ":9469"', "metrics_listen must be"),
        ('metrics_listen = "127.0.0.1"', "metrics_listen must be"),
        ('metrics_listen = "localhost:9469"', "metrics_listen must be"),
        ('metrics_listen = "::1:9469"', "metrics_listen must be"),
        ('metrics_listen = "[127.0.0.1]:9469"', "metrics_listen must be"),
        ('metrics_listen = "127.0.0.1:0"', "metrics_listen must be"),
        ('metrics_listen = "127.0.0.1:65536"', "metrics_listen must be"),
        ('metrics_listen = "127.0.0.1:http"', "metrics_listen must be"),
        ("metrics_listen = 9469", "metrics_listen must be a string"),
        ("= 3", "not valid TOML"),
    ],
)
def test_an_error_names_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    """Each error names the file and the key."""
    path = tmp_path / "overlayd.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=told):
        load(path, required=True)


def test_a_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    """TOML is UTF-8."""
    path = tmp_path / "overlayd.toml"
    path.write_bytes(b'dns_domain = "caf\xe9"\n')

    with pytest.raises(UsageError, match="not valid TOML"):
        load(path, required=True)


def test_every_error_of_a_file_is_found(tmp_path: Path) -> None:
    """Each has its line and key; what is valid is read."""
    path = tmp_path / "overlayd.toml"
    path.write_text('log_levl = "info"\nfast_path = "no"\napi_group = "net"\n\n[agent]\nx = 1\n')

    found = read(path)

    assert found.values == {"api_group": "net"}
    assert [(error.field, error.what) for error in found.errors] == [
        ("log_levl", f"{path}:1: unknown key 'log_levl'"),
        ("fast_path", f"{path}:2: fast_path must be auto, on or off, not 'no'"),
        ("agent", f"{path}:5: unknown section 'agent'"),
    ]
    assert found.errors[0].hint.startswith("Did you mean log_level?")


def test_a_start_says_that_there_are_more_errors(tmp_path: Path) -> None:
    """An agent that does not start names the first, and how to see all."""
    path = tmp_path / "overlayd.toml"
    path.write_text('fast_path = "no"\nlog_level = 3\n')

    with pytest.raises(UsageError, match="fast_path") as refused:
        load(path, required=True)

    assert refused.value.hint == f"All 2 errors: overlayd config check {path}"
