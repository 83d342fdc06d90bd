"""Bounds of sessions and handshakes."""

from __future__ import annotations

from overlay.limits.cluster import KEY_REST_S, MEMBER_COUNT_MAX

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- Sessions: ephemeral keys are renewed, and erased afterwards ------------------------
SESSION_RENEWED_S: Final = 600.0  # by the side that sent the hello
SESSION_RENEWAL_TURN_S: Final = 30.0  # later by the other side, if that has not happened
SESSION_DATAGRAMS_MAX: Final = 2**20  # sent with one session, then it is renewed
SESSION_SENDS_S: Final = 660.0  # an unused session seals nothing after that
SESSION_KEPT_S: Final = 720.0  # and is erased after that
assert SESSION_RENEWED_S + SESSION_RENEWAL_TURN_S < SESSION_SENDS_S < SESSION_KEPT_S
SESSION_PREVIOUS_S: Final = 5.0  # a replaced session still opens datagrams in transit
SESSION_SWEEP_S: Final = 5.0  # how often sessions that are over are erased
KEY_SWITCH_S: Final = 2.0  # after a cluster key is replaced, its sessions still seal
assert KEY_SWITCH_S < KEY_REST_S  # peers drop the old key, and its sessions, after that
KEY_DOUBT_S: Final = 8.0  # a peer that lacks the key in use is asked again, before it may drop ours
assert KEY_DOUBT_S < KEY_REST_S
SESSIONS_FORMER_MAX: Final = 16  # of one peer: replaced, and still open for what is under way
SESSIONS_UNPROVEN_MAX: Final = 8  # of one peer: hellos answered, nothing heard under them yet
HANDSHAKES_PENDING_MAX: Final = 4  # hellos sent to one peer whose responses still count
HANDSHAKE_KEPT_S: Final = 10.0
HANDSHAKE_FAILURES_MAX: Final = 8  # forged responses
HELLO_REPEAT_S: Final = 0.25  # a hello for which payloads wait; then 0.5, 0.75, 1 s
HELLO_REPEATS_MAX: Final = 8
HELLOS_REMEMBERED_MAX: Final = 64  # of one peer: ephemeral keys that are not answered twice
PROCESSES_REMEMBERED_MAX: Final = 64  # of one peer: those that another one has replaced
DUPLICATE_NOTICE_INTERVAL_S: Final = 1.0  # between notices to the hosts of one identity
NEWCOMERS_MAX: Final = 256  # unknown certified nodes with an unproven session
NEWCOMER_KEPT_S: Final = 10.0
PROMPTED_HELLOS_PER_S: Final = 100.0  # hellos because of datagrams that no session opens
PROMPTED_HELLOS_BURST: Final = 1000.0
PROMPTED_HELLO_INTERVAL_S: Final = 5.0  # to a peer with a session, which may be a forger's target

# --- Handshakes: each costs two key agreements (0.3 ms) before its sender has proven anything --
HANDSHAKES_PER_SOURCE_PER_S: Final = 20.0  # of an address that proved itself by a cookie
HANDSHAKES_PER_SOURCE_BURST: Final = 100.0
HANDSHAKES_UNPROVEN_PER_S: Final = 200.0  # without that, of all addresses together
HANDSHAKES_UNPROVEN_BURST: Final = 400.0
COOKIES_PER_S: Final = 2000.0  # sent
COOKIES_BURST: Final = 2000.0
COOKIE_SECRET_S: Final = 120.0
COOKIES_KEPT_MAX: Final = 16_384  # by a sender, one for each address
GATE_SOURCES_MAX: Final = 16_384
assert GATE_SOURCES_MAX > MEMBER_COUNT_MAX  # all members at once, as after a power cut
