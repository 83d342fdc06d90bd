"""A host without file descriptors left: nothing that can't be looked at is taken for gone."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel import gateways, netns, parents, probe, reset
from overlay.kernel.parents import Place
from overlay.kernel.sandbox import Sandbox

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing for the length of the block (EMFILE); what is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def living(world: World) -> Place:
    """Make a namespace that lives throughout."""
    name = world.namespace("living")
    return Place(str(netns.path_of(name)), netns.identity(world.fd(name)), "ve0")


def test_a_living_namespace_is_not_gone(living: Place) -> None:
    """Without descriptors, whoever asks for a namespace again is told so, not that it is gone."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files") as caught:
        netns.open_same(living.netns_path, living.netns_identity)

    assert not isinstance(caught.value, NotFoundError)
    assert "ulimit -n" in caught.value.hint


def test_an_ended_namespace_is_gone(world: World, living: Place) -> None:
    """A name taken away, one that leads elsewhere, and a file left are no error: it is gone."""
    descriptor = netns.open_same(living.netns_path, living.netns_identity)
    assert descriptor is not None
    os.close(descriptor)
    other = netns.path_of(world.namespace("other"))
    left = netns.path_of(world.claim("left"))
    left.touch()
    netns.remove(netns.path_of(living.netns_path).name)

    for path in (living.netns_path, other, left, "/proc/1/ns/net/more", "/proc/0/ns/net"):
        assert netns.open_same(path, living.netns_identity) is None


def test_a_name_is_not_free(living: Place) -> None:
    """Whether a name is taken can't be told: no second namespace is mounted over the first."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files"):
        netns.exists(netns.path_of(living.netns_path).name)


def test_an_interface_is_not_missing(living: Place) -> None:
    """A look at interfaces finds none of them gone, and a removal is not taken as done."""
    with no_descriptors():
        assert parents.missing([living]) == []
        with pytest.raises(OverlayError, match="Too many open files"):
            parents.detach(living)

    assert parents.missing([living]) == [living], "it never was there"


def test_a_default_route_is_not_settled(living: Place) -> None:
    """The caller hears that the default route was not looked at."""
    with no_descriptors(), pytest.raises(OverlayError, match="Too many open files"):
        gateways.settle(living.netns_path, living.netns_identity, [])


def test_a_sandbox_is_not_made_anew(world: World) -> None:
    """A sandbox that can't be opened is neither missing nor made."""
    name = world.host().sandbox.name
    with no_descriptors():
        for create in (False, True):
            with pytest.raises(OverlayError, match="Too many open files") as caught:
                Sandbox.open(name, create=create)
            assert not isinstance(caught.value, NotFoundError)


def test_nothing_is_left_out(world: World) -> None:
    """A look through all namespaces, and a reset, fail instead of passing by what they can't open:
    the name of a living sandbox would be taken away."""
    sandbox = world.claim("ov-0a0b0c")
    os.close(netns.create(sandbox))
    names = netns.names()
    assert sandbox in names
    with no_descriptors():
        with pytest.raises(OverlayError, match="Too many open files"):
            list(probe.namespaces())
        with pytest.raises(OverlayError, match="Too many open files"):
            reset._alias(sandbox)
