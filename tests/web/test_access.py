"""The page is shown to permitted users alone, and to no other site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from overlay import limits
from overlay.web import access
from tests.web.conftest import TOKEN

if TYPE_CHECKING:
    from tests.web.conftest import Site

PUBLIC = ("/sign-in", "/sign-in.css", "/mark.svg")


async def get(site: Site, path: str, **options: Any) -> tuple[int, str]:
    """Return status and text of a GET that follows no redirection."""
    async with site.client.get(site.url + path, allow_redirects=False, **options) as response:
        return response.status, await response.text()


async def sign_in(site: Site, token: str) -> Any:
    """Send the form; return the response."""
    async with site.client.post(
        f"{site.url}/sign-in", data={"token": token}, allow_redirects=False
    ) as response:
        await response.read()
        return response


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "", "page.example.evil"]
)
async def test_another_sites_name_is_refused(site: Site, name: str) -> None:
    """DNS may lead it here, so that its scripts would read the page."""
    for path in ("/", "/state", "/stream", "/js/main.js"):
        status, text = await get(site, path, headers={"Host": f"{name}:7950"})

        assert status == 403
        assert "next:" in text


NAMES = (
    "127.0.0.1:7950", "localhost:7950", "[::1]:7950", "192.0.2.7", "page.example", "PAGE.EXAMPLE:1",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_addresses_and_chosen_names_are_accepted(site: Site, name: str) -> None:
    """An address cannot be led elsewhere by DNS."""
    assert (await get(site, "/", headers={"Host": name}))[0] == 200


async def test_other_sites_get_nothing(site: Site) -> None:
    """Neither by a script nor in a frame; a link to the page is followed."""
    for where in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "no-cors"}
        assert (await get(site, "/state", headers=headers))[0] == 403
    assert (await get(site, "/state", headers={"Origin": "http://evil.example"}))[0] == 403
    assert (await get(site, "/state", headers={"Origin": "null"}))[0] == 403
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert (await get(site, "/", headers=visit))[0] == 200


async def test_local_users_need_the_agents_group(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user of this host is told what to do; an unknown client is refused, too."""
    for uid in (12345, None):
        monkeypatch.setattr(access, "owner_of", lambda _, uid=uid: uid)
        headers = {"Connection": "close"}
        await site.client.get(f"{site.url}/", headers=headers)
        status, text = await get(site, "/state", headers=headers)

        assert status == 403
        assert "for root and the group overlayd" in text


async def test_without_the_token_there_is_only_a_form(token_site: Site) -> None:
    """The page leads to it, and everything else is refused."""
    assert (await get(token_site, "/"))[0] == 303
    for path in PUBLIC:
        assert (await get(token_site, path))[0] == 200
    for path in ("/index.html", "/state", "/stream", "/js/main.js", "/base.css", "/none"):
        assert (await get(token_site, path))[0] == 401


async def test_the_token_opens_a_session(token_site: Site) -> None:
    """Its cookie is no script's, no other site's, and not the token; signing out ends it."""
    response = await sign_in(token_site, TOKEN)
    cookie = response.headers["Set-Cookie"]

    assert response.status == 303
    assert response.headers["Location"] == "/"
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert (await get(token_site, "/"))[0] == 200
    assert (await get(token_site, "/state"))[0] == 200
    async with token_site.client.post(f"{token_site.url}/sign-out", allow_redirects=False):
        pass
    kept = {"Cookie": cookie.partition(";")[0]}
    assert (await get(token_site, "/state", headers=kept))[0] == 401


async def test_a_program_sends_the_token_itself(token_site: Site) -> None:
    """As a bearer; never in the address, which logs and histories keep."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    assert (await get(token_site, "/state", headers=bearer))[0] == 200
    assert (await get(token_site, "/state", headers={"Authorization": "Bearer x"}))[0] == 401
    assert (await get(token_site, "/state", headers={"Authorization": f"Basic {TOKEN}"}))[0] == 401
    assert (await get(token_site, f"/state?token={TOKEN}"))[0] == 401


async def test_a_wrong_token_is_refused(token_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form says so, and the attempt costs time."""
    monkeypatch.setattr(limits, "WEB_SIGN_IN_PAUSE_S", 0.01)
    for wrong in ("", "wrong", TOKEN[:-1], TOKEN + "x", "ü"):
        response = await sign_in(token_site, wrong)
        assert response.status == 403
        assert "Set-Cookie" not in response.headers
    async with token_site.client.post(f"{token_site.url}/sign-in", data="x" * 10_000) as large:
        assert large.status in (403, 413)


async def test_sessions_are_bounded(token_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest one ends, and each ends by itself."""
    monkeypatch.setattr(limits, "WEB_SESSIONS_MAX", 2)
    cookies = [(await sign_in(token_site, TOKEN)).headers["Set-Cookie"].partition(";")[0]
               for _ in range(3)]  # fmt: skip
    token_site.client.cookie_jar.clear()
    found = [(await get(token_site, "/state", headers={"Cookie": each}))[0] for each in cookies]
    assert found == [401, 200, 200]

    monkeypatch.setattr(limits, "WEB_SESSION_S", -1.0)
    await sign_in(token_site, TOKEN)
    assert (await get(token_site, "/state"))[0] == 401
