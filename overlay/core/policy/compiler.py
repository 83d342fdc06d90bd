"""From the policies of a network to the rows that the kernel decides by.

One longest-prefix match over the classes of source and destination, protocol and port gives
exactly what `decision.decide` gives; denies that beat allows are resolved here. Addresses that are
selected alike are one class, and only pairs with an endpoint of this host have rows.

A class keeps its number from one plan to the next, so that an attach changes the rows of its own
addresses alone; the kernel replaces verdicts all at once.

Owns: which pairs of classes get rows, bounds, and what is kept from one plan to the next.
Does not: know the kernel, or which hooks run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.dataplane.planning.inputs import PolicyRows
from overlay.core.dataplane.state import (
    DEFAULT_RULE,
    GATEWAY_CLASS,
    NO_CLASS,
    PolicyClassRow,
    VerdictRow,
)
from overlay.core.policy.decision import GATEWAY_SERVICES, RESOLVER_SERVICES
from overlay.core.policy.policy import Policy
from overlay.core.policy.population import AddressBook, Population
from overlay.core.policy.port_rulings import PortRuling, Ruling, port_rulings
from overlay.core.policy.selection import (
    PeerIndex,
    RangeTable,
    Selection,
    SelectionNames,
    number_for,
)
from overlay.model import Ip, Network, Subnet, has_default_deny

_CLASS_MIN: Final = GATEWAY_CLASS + 1
_RULE_MIN: Final = DEFAULT_RULE + 1


class _Classes(NamedTuple):
    """The classes of all addresses."""

    addresses: dict[tuple[Ip, int], Selection]  # ranges; those that differ from the one around
    numbers: dict[Selection, int]
    local: set[Selection]


class _TooManyRowsError(Exception):
    """The kernel's tables are too small for what was asked for."""


class PolicyCompiler:
    """Compiles the policies of one network on one host, again after each change."""

    def __init__(self) -> None:
        self._rules: _Rules | None = None
        self._given: tuple[tuple[Policy, ...], Population] | None = None
        self._last = PolicyRows()
        self._numbers: Mapping[SelectionNames, int] = {}

    def compile(self, policies: tuple[Policy, ...], population: Population) -> PolicyRows:
        """Return the rows; those of the last call if nothing has changed since."""
        given = policies, population
        if given != self._given:
            self._last = self._compile(policies, population)
            self._given = given
        return self._last

    def _compile(self, policies: tuple[Policy, ...], population: Population) -> PolicyRows:
        rules = self._rules
        if rules is None or not rules.are_of(policies, population):
            rules = self._rules = _Rules(policies, population)
        try:
            rules.require_counted()
            classes = rules.classes(population, self._numbers)
            rows = tuple(rules.rows(classes))
        except _TooManyRowsError as error:
            return PolicyRows(_closed(population.network), fault=str(error))
        names_of = rules.index.names_of
        self._numbers = {names_of(each): number for each, number in classes.numbers.items()}
        return PolicyRows(rows)


class _Rules:
    """The policies of a network, ready for its endpoints."""

    def __init__(self, policies: tuple[Policy, ...], population: Population) -> None:
        self._of = _fixed(policies, population)
        ordered = sorted(policies, key=lambda each: each.precedence)
        self.index = PeerIndex(ordered)
        table = RangeTable(self.index, population.network, population.networks)
        self._around = table.doubted_at
        self._ranges = table.classes()
        self._book = AddressBook(self.index, table)
        self._gateway = self._book.at_gateway(population.network.subnets[0])
        numbers = rule_numbers(each.name for each in ordered)
        self._decided = [
            (each, Ruling(each.action == "allow", each.log, numbers[each.name.lower()]))
            for each in ordered
        ]
        self._default = Ruling(allow=not has_default_deny(population.network))
        self._by_pair: dict[
            tuple[Selection, frozenset[tuple[int, int]]], tuple[PortRuling, ...]
        ] = {}

    def are_of(self, policies: tuple[Policy, ...], population: Population) -> bool:
        """Return whether these are the rules of these policies."""
        return self._of == _fixed(policies, population)

    def require_counted(self) -> None:
        """Raise _TooManyRowsError if there are more policies than count."""
        if len(self._decided) > limits.POLICIES_PER_NETWORK_MAX:
            raise _TooManyRowsError(f"it has more than {limits.POLICIES_PER_NETWORK_MAX} policies")

    def classes(self, population: Population, former: Mapping[SelectionNames, int]) -> _Classes:
        """Return the classes of all addresses; those that there were keep their numbers."""
        known, local = self._book.read(population)
        addresses = dict(self._ranges)
        for ip, selection in known.items():
            if self._around(ip) != selection:
                addresses[ip, 8 * len(ip)] = selection
        if len(addresses) > limits.POLICY_RANGES_MAX:
            raise _TooManyRowsError(
                f"{len(addresses)} addresses differ in what policies select them; "
                f"the limit is {limits.POLICY_RANGES_MAX}"
            )
        everything = {*addresses.values(), *local}
        if population.has_router:
            local = everything
        return _Classes(addresses, self._numbers(everything, former), local)

    def _numbers(
        self, everything: Iterable[Selection], former: Mapping[SelectionNames, int]
    ) -> dict[Selection, int]:
        taken = set(former.values())
        numbers: dict[Selection, int] = {}
        for selection in sorted(everything):
            if selection == self._gateway:
                numbers[selection] = GATEWAY_CLASS
                continue
            names = self.index.names_of(selection)
            number = former.get(names, GATEWAY_CLASS)
            if number == GATEWAY_CLASS:
                if len(taken) >= limits.POLICY_CLASSES_MAX - _CLASS_MIN:
                    raise _TooManyRowsError(
                        "the policies divide addresses into more than "
                        f"{limits.POLICY_CLASSES_MAX} classes"
                    )
                text = "\0".join(sorted(names))
                number = number_for(text, _CLASS_MIN, limits.POLICY_CLASSES_MAX, taken)
                taken.add(number)
            numbers[selection] = number
        return numbers

    def rows(self, classes: _Classes) -> Iterator[PolicyClassRow | VerdictRow]:
        """Yield all rows; raises _TooManyRowsError."""
        for each, selection in classes.addresses.items():
            yield PolicyClassRow(*each, classes.numbers[selection])
        yield VerdictRow(NO_CLASS, NO_CLASS, 0, 0, 0, *self._default)
        count = 1
        for source, destination, found in self._pairs(classes):
            count += len(found)
            if count > limits.POLICY_VERDICTS_MAX:
                raise _TooManyRowsError(
                    f"the policies need more than {limits.POLICY_VERDICTS_MAX} rules on this host"
                )
            for protocol, port, bits, verdict in found:
                yield VerdictRow(source, destination, protocol, port, bits, *verdict)

    def _pairs(self, classes: _Classes) -> Iterator[tuple[int, int, tuple[PortRuling, ...]]]:
        everyone = [
            (number, selection, selection in classes.local)
            for selection, number in classes.numbers.items()
        ]
        ours = [each for each in everyone if each[2]]
        for source, from_, is_local in everyone:
            for destination, to, _ in everyone if is_local else ours:
                found = self._between(from_, to)
                if found:
                    yield source, destination, found

    def _between(self, source: Selection, destination: Selection) -> tuple[PortRuling, ...]:
        matching = self.index.matching(source, destination)
        services = self._services(destination)
        found = self._by_pair.get((matching, services))
        if found is None:
            decided = [each for bit, each in enumerate(self._decided) if matching >> bit & 1]
            found = port_rulings(decided, self._default, services)
            self._by_pair[matching, services] = found
        return found

    def _services(self, destination: Selection) -> frozenset[tuple[int, int]]:
        """Return what is always allowed there, and not by the kernel itself (GATEWAY_CLASS)."""
        if destination & self.index.gateway:
            return frozenset() if destination == self._gateway else GATEWAY_SERVICES
        return RESOLVER_SERVICES if destination & self.index.resolver else frozenset()


def rule_numbers(names: Iterable[str]) -> dict[str, int]:
    """Return the numbers that policies have in counters, by their names in lower case."""
    found: dict[str, int] = {}
    for name in sorted({name.lower() for name in names}):
        found[name] = number_for(name, _RULE_MIN, limits.POLICY_RULES_MAX, found.values())
    return found


def _closed(network: Network) -> tuple[PolicyClassRow | VerdictRow, ...]:
    """Return the rows that allow nothing but what the gateway always answers."""
    gateways = (subnet.gateway for subnet in network.subnets)
    return (
        VerdictRow(NO_CLASS, NO_CLASS, 0, 0, 0, allow=False),
        *(PolicyClassRow(ip, 8 * len(ip), GATEWAY_CLASS) for ip in gateways),
    )


def _fixed(
    policies: tuple[Policy, ...], population: Population
) -> tuple[tuple[Policy, ...], Network, tuple[tuple[str, tuple[Subnet, ...]], ...]]:
    return policies, population.network, population.networks
