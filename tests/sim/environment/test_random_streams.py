from __future__ import annotations

from overlay.sim.environment.random_streams import RandomStreams


def test_a_stream_depends_on_seed_and_name_alone() -> None:
    """Draws from one stream do not change those of another."""
    one, two = RandomStreams(7), RandomStreams(7)
    for _ in range(10):
        one.stream("network").random()

    assert one.stream("faults").random() == two.stream("faults").random()


def test_streams_and_seeds_differ() -> None:
    """Another name or another seed gives other draws."""
    draws = {
        RandomStreams(seed).stream(name).random()
        for seed in (1, 2)
        for name in ("network", "faults")
    }

    assert len(draws) == 4
