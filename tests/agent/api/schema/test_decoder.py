"""Decoding requests: what each field may hold, and the error for everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from overlay.agent.api.endpoints import endpoint_options
from overlay.agent.api.schema.cluster import (
    EventsRequest,
    ForgetRequest,
    JoinRequest,
    LeaveRequest,
    VerifyRequest,
)
from overlay.agent.api.schema.containers import ContainerCreateRequest
from overlay.agent.api.schema.decoder import decode, decode_query
from overlay.agent.api.schema.dns import CustomRecordRequest
from overlay.agent.api.schema.endpoints import AttachRequest, DetachRequest
from overlay.agent.api.schema.exposure import PublishRequest
from overlay.agent.api.schema.field_types import EmptyRequest, NetworkFilter, Request
from overlay.agent.api.schema.networks import NetworkCreateRequest
from overlay.agent.api.schema.tokens import TokenCreateRequest
from overlay.errors import UsageError
from overlay.model import PORT_SECURITY_OFF_LABEL, parse_ip, parse_mac

ATTACH = {"target": "netns:c1", "networks": ["blue"]}
MANY_LABELS = {str(number): "x" for number in range(16)}


def body(fields: Any) -> bytes:
    """Return the body of a request."""
    return json.dumps(fields).encode()


def error_of(shape: type[Request], fields: Any) -> UsageError:
    """Return the error with which a body is refused."""
    with pytest.raises(UsageError) as caught:
        decode(shape, body(fields))
    return caught.value


def test_fields_are_decoded() -> None:
    """Each field has the value of the body, in the form that the agent uses."""
    made = decode(
        AttachRequest,
        body({
            **ATTACH, "ip": "10.0.0.1", "mac": "02:00:00:00:00:01", "ifname": "eth1",
            "default_route": True, "aliases": ["www"], "labels": {"b": "2", "a": "1"},
            "wait": "none", "port_security": False, "rate_in": 64_000, "rate_out": 0,
            "gateway_priority": -5, "name": "web", "allow_ips": ["10.0.0.9"],
        }),
    )  # fmt: skip
    spec = endpoint_options(made, name=made.name)

    assert (made.target, made.networks, made.wait) == ("netns:c1", ("blue",), "none")
    assert (spec.name, spec.ips, spec.ifname) == ("web", (parse_ip("10.0.0.1"),), "eth1")
    assert spec.mac == parse_mac("02:00:00:00:00:01")
    assert spec.allow_ips == (parse_ip("10.0.0.9"),)
    assert spec.labels == (("a", "1"), ("b", "2"), PORT_SECURITY_OFF_LABEL)
    assert (spec.rates, spec.gateway_priority, spec.aliases) == ((64_000, 0), -5, ("www",))
    record = body({"name": "db", "network": "blue", "ips": ["fd00::1"]})
    assert decode(CustomRecordRequest, record).ips == (parse_ip("fd00::1"),)


def test_an_attach_may_have_an_address_of_each_family() -> None:
    """Two of one family, or one beside the list, would be lost."""
    both = decode(AttachRequest, body({**ATTACH, "ips": ["fd00::1", "10.0.0.1"]}))

    assert endpoint_options(both, None).ips == (parse_ip("fd00::1"), parse_ip("10.0.0.1"))
    for fields, what in (
        ({"ips": ["10.0.0.1", "10.0.0.2"]}, "two IPv4 addresses"),
        ({"ips": ["fd00::1", "fd00::2"]}, "two IPv6 addresses"),
        ({"ip": "10.0.0.1", "ips": ["fd00::1"]}, "ip and ips exclude each other"),
        ({"ips": ["fd00::1"], "networks": ["blue", "red"]}, "require exactly one network"),
        ({"allow_ips": ["fd00::1"], "networks": ["blue", "red"]}, "require exactly one network"),
    ):
        with pytest.raises(UsageError, match=what):
            decode(AttachRequest, body({**ATTACH, **fields}))


@pytest.mark.parametrize(
    "fields", [ATTACH, {**ATTACH, **dict.fromkeys(("ip", "aliases", "labels", "wait", "ifname",
               "port_security", "default_route", "rate_in", "gateway_priority", "name"))}],
    ids=["left-out", "null"],
)  # fmt: skip
def test_a_field_that_is_left_out_or_null_has_its_default(fields: dict[str, Any]) -> None:
    """Both mean the same in every request."""
    made = decode(AttachRequest, body(fields))
    spec = endpoint_options(made, name=made.name)

    assert (spec.ips, spec.mac, spec.ifname, spec.name) == ((), None, None, None)
    assert (spec.aliases, spec.labels, spec.rates) == ((), (), (None, None))
    assert (spec.default_route, spec.gateway_priority, made.wait) == (True, None, "all")


def test_null_in_a_nested_object_is_its_default() -> None:
    """A subnet's fields follow the same rule."""
    subnet = {"subnet": "10.0.0.0/8", "gateway": None, "auxiliary": None, "block_length": None}
    made = decode(NetworkCreateRequest, body({"name": "blue", "subnets": [subnet]}))

    assert made.subnets[0].subnet == "10.0.0.0/8"
    assert (made.subnets[0].gateway, made.subnets[0].block_length) == (None, None)


def test_an_empty_body_has_no_fields() -> None:
    """A request without required fields needs no body."""
    assert decode(LeaveRequest, b"") == LeaveRequest(force=False)
    assert decode(EmptyRequest, b" {} ") == EmptyRequest()
    with pytest.raises(UsageError, match="node is missing"):
        decode(ForgetRequest, b"")


def test_query_parameters_are_decoded() -> None:
    """Numbers are texts in a query string; a text that looks like null stays a text."""
    assert decode_query(VerifyRequest, {"repair": "1"}).repair == "1"
    assert decode_query(VerifyRequest, {}).repair == "0"
    assert decode_query(EventsRequest, {"since": "1.5"}).since == 1.5
    assert decode_query(EventsRequest, {}).since == 0
    assert decode_query(NetworkFilter, {"network": "null"}).network == "null"


@pytest.mark.parametrize(
    ("shape", "query"),
    [
        (VerifyRequest, {"repair": "true"}),
        (VerifyRequest, {"repair": ""}),
        (EventsRequest, {"since": "yesterday"}),
        (EventsRequest, {"since": "nan"}),
        (EventsRequest, {"since": "1e999"}),
        (EventsRequest, {"since": ""}),
        (NetworkFilter, {"network": ""}),
        (NetworkFilter, {"network": "a\nb"}),
        (NetworkFilter, {"network": "\udcff"}),
        (EventsRequest, {"since": "\udcff"}),
        (NetworkFilter, {"name": "blue"}),
        (EmptyRequest, {"strange": "1"}),
    ],
)
def test_wrong_parameters_are_refused(shape: type[Request], query: dict[str, str]) -> None:
    """The error names the parameter."""
    with pytest.raises(UsageError) as caught:
        decode_query(shape, query)

    assert caught.value.field == next(iter(query))


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        (EmptyRequest, {"a": 1}),
        (EmptyRequest, {"a": None}),
        (ForgetRequest, {"node": "vm2", "a": None}),
        (NetworkCreateRequest, {"name": "blue", "vni": True}),
        (NetworkCreateRequest, {"name": "blue", "vni": 16_777_216}),
        (NetworkCreateRequest, {"name": "blue", "vni": 0}),
        (NetworkCreateRequest, {"name": "blue", "vni": 2**70}),
        (NetworkCreateRequest, {"name": "blue", "vni": 5.0}),
        (NetworkCreateRequest, {"name": "blue", "subnets": {}}),
        (NetworkCreateRequest, {"name": "blue", "subnets": ["10.0.0.0/8"]}),
        (NetworkCreateRequest, {"name": "blue", "subnets": [{}]}),
        (LeaveRequest, {"force": 1}),
        (ForgetRequest, {"node": 1}),
        (ForgetRequest, {"node": ""}),
        (ForgetRequest, {}),
        (ForgetRequest, {"node": None}),
        (DetachRequest, {"target": "c1", "networks": "a"}),
        (DetachRequest, {"target": "c1", "networks": ["a"] * 1025}),
        (DetachRequest, {"target": "c1", "networks": False}),
        (DetachRequest, {"target": "c1", "networks": ["x" * 4097]}),
        (DetachRequest, {"target": "two\nlines"}),
        (DetachRequest, {"target": "c1", "networks": ["\x1b[2J"]}),
        (AttachRequest, {"target": "c1", "networks": []}),
        (AttachRequest, {"target": "c1", "networks": ["a", "host"]}),
        (AttachRequest, {"target": "c1", "networks": ["container:web"]}),
        (AttachRequest, {**ATTACH, "networks": ["a", "b"], "ip": "10.0.0.1"}),
        (AttachRequest, {**ATTACH, "ifname": "a/b"}),
        (AttachRequest, {**ATTACH, "ifname": "x" * 16}),
        (AttachRequest, {**ATTACH, "ifname": "eth%d"}),
        (AttachRequest, {**ATTACH, "ifname": "\u00e9" * 8}),
        (AttachRequest, {**ATTACH, "ifname": "default"}),
        (AttachRequest, {**ATTACH, "ifname": ".."}),
        (AttachRequest, {**ATTACH, "ifname": "eth1\n"}),
        (AttachRequest, {**ATTACH, "wait": "some"}),
        (AttachRequest, {**ATTACH, "ip": "10.0.0"}),
        (AttachRequest, {**ATTACH, "ip": 7}),
        (AttachRequest, {**ATTACH, "mac": "01:00:00:00:00:00"}),
        (AttachRequest, {**ATTACH, "mac": "00:00:00:00:00:00"}),
        (AttachRequest, {**ATTACH, "mac": "06:ca:23:90:d7:8c"}),
        (ContainerCreateRequest, {"name": "c1", "networks": ["a"], "mac": "06-00-00-00-00-01"}),
        (AttachRequest, {**ATTACH, "mac": "zz"}),
        (AttachRequest, {**ATTACH, "mac": []}),
        (AttachRequest, {**ATTACH, "name": "a b"}),
        (AttachRequest, {**ATTACH, "name": "x" * 64}),
        (AttachRequest, {**ATTACH, "name": "\u017fun"}),
        (AttachRequest, {**ATTACH, "name": "\u212a"}),
        (AttachRequest, {**ATTACH, "name": "a..b"}),
        (AttachRequest, {**ATTACH, "name": "web\n"}),
        (AttachRequest, {**ATTACH, "aliases": ["www", "a b"]}),
        (AttachRequest, {**ATTACH, "aliases": ["x" * 64]}),
        (AttachRequest, {**ATTACH, "aliases": ["www"] * 9}),
        (AttachRequest, {**ATTACH, "labels": 0}),
        (AttachRequest, {**ATTACH, "labels": {"a": "\x14"}}),
        (AttachRequest, {**ATTACH, "labels": {"a\x14": "b"}}),
        (AttachRequest, {**ATTACH, "labels": {"a": 1}}),
        (AttachRequest, {**ATTACH, "labels": {"a": None}}),
        (AttachRequest, {**ATTACH, "labels": {"a": "\U0001f600" * 32}}),
        (AttachRequest, {**ATTACH, "labels": {str(n): "x" for n in range(17)}}),
        (AttachRequest, {**ATTACH, "labels": {"overlayd.x": "1"}}),
        (AttachRequest, {**ATTACH, "labels": MANY_LABELS, "port_security": False}),
        (AttachRequest, {**ATTACH, "rate_in": 63_999}),
        (AttachRequest, {**ATTACH, "rate_out": -1}),
        (AttachRequest, {**ATTACH, "rate_out": 32_000_000_001}),
        (AttachRequest, {**ATTACH, "gateway_priority": 1001}),
        (AttachRequest, {**ATTACH, "gateway_priority": 0, "default_route": False}),
        (ContainerCreateRequest, {"name": "c1", "target": "c1"}),
        (ContainerCreateRequest, {"name": "c1", "dns_servers": ["10.0.0.1"] * 4}),
        (ContainerCreateRequest, {"name": "c1", "dns_servers": ["one"]}),
        (ContainerCreateRequest, {"name": "c1", "dns_search": ["a b"]}),
        (ContainerCreateRequest, {"name": "c1", "dns_options": ["ndots:2\nnameserver"]}),
        (CustomRecordRequest, {"name": "db", "network": "blue", "ips": []}),
        (PublishRequest, {"name": "web", "ports": [8080]}),
        (PublishRequest, {"name": "web", "ports": []}),
        (TokenCreateRequest, {"label": "x" * 64}),
        (TokenCreateRequest, {"label": "a\tb"}),
        (TokenCreateRequest, {"uses": 0}),
    ],
)
def test_a_wrong_field_is_refused_by_name(shape: type[Request], fields: dict[str, Any]) -> None:
    """A field of the wrong type or range is a usage error with its name and what to do."""
    error = error_of(shape, fields)

    assert error.field
    assert len(error.what) < 400
    assert "`" not in error.what, "the decoder's own words"
    assert error.what.isprintable()


@pytest.mark.parametrize(
    ("shape", "fields", "text", "field"),
    [
        (ForgetRequest, {"nod": "x"},
         ("unknown field 'nod'. Did you mean node? Allowed here: node, powered_off, ban, "
          "remove_networks, force"),
         "nod"),
        (EmptyRequest, {"a": 1}, "unknown field 'a'. Allowed here: no fields", "a"),
        (EmptyRequest, {"a` - at `$.b": 1},
         "unknown field 'a` - at `$.b'. Allowed here: no fields", "a` - at `$.b"),
        (NetworkCreateRequest, {"name": "blue", "subnets": [{"net": "x"}]},
         ("unknown field 'net'. Did you mean subnet? Allowed here: subnet, gateway, ip_range, "
          "auxiliary, block_length"),
         "net"),
        (NetworkCreateRequest, {"name": "blue", "subnets": [{"subnet": "x", "ip_range": 5}]},
         "ip_range must be text of at most 4096 characters, not 5 (in subnets[0])", "ip_range"),
        (NetworkCreateRequest, {"name": "blue", "subnets": [{}]},
         "subnet is missing (in subnets[0]). Add the field subnet", "subnet"),
        (NetworkCreateRequest, {"name": "blue", "subnets": ["x"]},
         "subnets[0] must be an object, not 'x'", "subnets"),
        (NetworkCreateRequest, {"name": "blue", "vni": "x"},
         "vni must be a whole number from 1 to 16777215, not 'x'", "vni"),
        (LeaveRequest, {"force": 1}, "force must be true or false, not 1", "force"),
        (DetachRequest, {"target": "c1", "networks": [True]},
         "networks[0] must be text of at most 4096 characters, not true", "networks"),
        (DetachRequest, {"target": "c1", "networks": "a"},
         "networks must be a list of at most 1024 texts, not 'a'", "networks"),
        (AttachRequest, {**ATTACH, "networks": []},
         "networks must be a list of 1 to 1024 texts, not a list of 0", "networks"),
        (AttachRequest, {**ATTACH, "wait": "some"},
         "wait must be 'all' or 'none', not 'some'", "wait"),
        (AttachRequest, {**ATTACH, "target": ""}, "target must not be empty", "target"),
        (AttachRequest, {**ATTACH, "labels": {"a": 1}},
         "labels[...] must be text of at most 128 characters", "labels"),
        (AttachRequest, {**ATTACH, "name": "a b"},
         ("name: 'a b' is not a valid name: a name has up to 63 letters, digits, '-', '_' and '.', "
          "and starts and ends with a letter or digit"), "name"),
        (AttachRequest, {**ATTACH, "ip": "10.0.0"},
         "ip: '10.0.0' is not an IP address. Such as 10.32.0.5, or fd40::5", "ip"),
        (AttachRequest, {**ATTACH, "mac": "06:00:00:00:00:01"},
         ("mac: '06:00:00:00:00:01' cannot be the MAC of a container: MACs that begin with 06 are "
          "for the gateways of networks. Choose one with another first byte, as in "
          "02:00:00:00:00:01"), "mac"),
        (CustomRecordRequest, {"name": "db", "network": "blue", "ips": ["fd00::1", "x"]},
         "ips: 'x' is not an IP address. Such as 10.32.0.5, or fd40::5", "ips"),
    ],
)  # fmt: skip
def test_an_error_says_where_and_what_is_expected(
    shape: type[Request], fields: dict[str, Any], text: str, field: str
) -> None:
    """The path of the field, what it must be, and what it was."""
    error = error_of(shape, fields)

    assert (str(error), error.field) == (text, field)


def test_an_unknown_query_parameter_is_called_that() -> None:
    """It is no field of a body; the allowed ones are named."""
    for shape, query, text in (
        (
            EventsRequest,
            {"sinc": "5"},
            "unknown query parameter 'sinc'. Allowed here: since, follow",
        ),
        (EmptyRequest, {"a": ""}, "unknown query parameter 'a'. Allowed here: none"),
    ):
        with pytest.raises(UsageError) as caught:
            decode_query(shape, query)
        assert str(caught.value) == text
        assert caught.value.field in query


@pytest.mark.parametrize("secret", ["ovt1.SECRET" * 400, ["ovt1.SECRET"], {"a": "ovt1.SECRET"}, ""])
def test_no_error_repeats_a_secret(secret: Any) -> None:
    """Neither does the request's own text, which a traceback may show."""
    error = error_of(JoinRequest, {"token": secret})

    assert error.field == "token"
    assert "SECRET" not in json.dumps(error.body())
    assert "SECRET" not in json.dumps(error_of(JoinRequest, {"token": "SECRET\n"}).body())
    assert "SECRET" not in repr(decode(JoinRequest, body({"token": "ovt1.SECRET"})))


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"a":' * 5000, b"null", b"{}{}", b'{"force": NaN}',
     b'{"force": 1e999}', b'{"labels": {"\\ud800": "b"}}'],
    ids=["open", "list", "text", "no-utf-8", "deep", "null", "two", "nan", "huge", "surrogate"],
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_refused(raw: bytes) -> None:
    """The error is about the body, not about a field."""
    with pytest.raises(UsageError, match="the request body") as caught:
        decode(LeaveRequest, raw)

    assert caught.value.field == ""
