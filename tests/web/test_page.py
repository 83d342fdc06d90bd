"""The page in a real browser: what is seen, read aloud, clicked and typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.web.browser import Tab, browser
from tests.web.conftest import TOKEN, Site, serve
from tests.web.fake_cluster import endpoint, large, member, network, story

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
ROWS = "document.querySelectorAll('#{}-table tbody tr:not([hidden])').length"
TEXT = "document.querySelector('{}').textContent"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab() -> AsyncIterator[Tab]:
    """Return a page of a browser that all these tests share."""
    async with browser() as made:
        await made.size(1440, 900)
        yield made


async def opened(tab: Tab, site: Site, path: str = "/") -> None:
    """Open the page and wait until it shows the cluster."""
    await tab.open("about:blank#")  # the page before may still say that its server has gone
    tab.console.clear()
    tab.requested.clear()
    await tab.open(site.url + path)
    await tab.until(f"{ROWS.format('hosts')} > 0")


async def names_of(tab: Tab, role: str) -> list[str]:
    """Return the names that the browser tells a screen reader, of everything with a role."""
    tree = await tab.call("Accessibility.getFullAXTree")
    return [
        each.get("name", {}).get("value", "")
        for each in tree["nodes"]
        if each.get("role", {}).get("value") == role and not each.get("ignored")
    ]


async def test_the_story_is_shown(tab: Tab, tmp_path: Path) -> None:
    """Hosts, paths, networks, containers, the problem and events, and nothing from elsewhere."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)

        assert await tab.evaluate(TEXT.format("#title")) == (
            "Cluster 7f3a9c21 from vm1: 3 hosts, 8 containers"
        )
        paths = await tab.evaluate(
            "[...document.querySelectorAll('.path')].map(e => e.textContent)"
        )
        assert paths == ["this host", "0.4 ms1500 B", "lost to vm3"]
        assert "vm3 receives no VXLAN" in await tab.evaluate(TEXT.format("#problems"))
        assert await tab.evaluate("document.querySelectorAll('#picture li').length") == 8
        assert await tab.evaluate("document.querySelectorAll('#events li').length") == 4
        assert await tab.evaluate(TEXT.format("#live")) == "Live"
        assert await tab.evaluate("document.title") == "(1) vm1 · overlayd"
        assert {url.partition("/")[2][:1] for url in tab.requested} == {"/"}
        assert all(url.startswith((site.url, "about:")) for url in tab.requested)
        assert tab.console == []


async def test_names_are_text(tab: Tab, tmp_path: Path) -> None:
    """Whatever a hostile member calls its containers."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        hostile = "<img src=x onerror=document.title='owned'>"
        cluster.endpoints.append(endpoint(hostile, hostile, "blue", 77) | {"node": "vm2"})
        cluster.endpoints[-1]["labels"] = {"<b>": "</td>"}
        cluster.happen(hostile, network=hostile)
        await opened(tab, site, f"/#container/{77:016x}")

        assert hostile in await tab.evaluate(TEXT.format("#details"))
        assert hostile in await tab.evaluate(TEXT.format("#events"))
        assert await tab.evaluate("document.querySelectorAll('main img, main b').length") == 0
        assert tab.console == []


async def test_the_tables_are_read_aloud(tab: Tab, tmp_path: Path) -> None:
    """With captions, headers and rows; the picture is hidden, for it says nothing more."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)

        assert await names_of(tab, "table") == ["Hosts: 3. Paths are from vm1", "Containers: 8"]
        headers = await names_of(tab, "columnheader")
        assert headers[:5] == ["Host", "Address", "State", "Path", "Latency"]
        assert "vm3" in await names_of(tab, "rowheader")
        cells = await names_of(tab, "cell") + await names_of(tab, "gridcell")
        assert "lost to vm3" in cells
        assert await names_of(tab, "log") == ["Events"]
        assert await names_of(tab, "searchbox") == ["Search"]
        assert {"Details", "Networks", "Hosts and paths", "Tables"} <= set(
            await names_of(tab, "heading")
        )
        texts = await names_of(tab, "StaticText")
        assert texts.count("lost to vm3") == 1  # of the table; the picture has it, too


async def test_the_keyboard_reaches_everything(tab: Tab, tmp_path: Path) -> None:
    """In the order of the page; details open with Enter and close with Escape, back to the row."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)
        seen = []
        for _ in range(8):
            await tab.press("Tab")
            seen.append(await tab.evaluate("document.activeElement.textContent.slice(0, 24)"))
        assert seen[0] == "Skip to the tables"
        assert [text[:5] for text in seen[2:5]] == ["backe", "blue3", "green"]

        await tab.evaluate("document.querySelectorAll('#hosts-table tbody button')[2].focus()")
        await tab.press("Enter")
        await tab.until("document.activeElement.id === 'details-title'")
        assert "lost" in await tab.evaluate(TEXT.format("#details-body"))
        assert "netcheck vm3" in await tab.evaluate(TEXT.format("#details-body"))
        await tab.press("Escape")
        await tab.until("document.activeElement.textContent === 'vm3'")

        await opened(tab, site, "/#%")  # no name
        await tab.evaluate("location.hash = 'host/vm2'")
        await tab.until("document.querySelector('#details h3')?.textContent === 'vm2'")
        await tab.press("Escape")
        await tab.until("document.querySelector('#details h3') === null")
        await tab.press("/")
        assert await tab.evaluate("document.activeElement.id") == "search"


async def test_search_finds_in_picture_and_table(tab: Tab, tmp_path: Path) -> None:
    """By every word, in names, addresses, networks, hosts and labels."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)
        for text, containers, hosts in (
            ("team=shop", 1, 0), ("api green", 1, 0), ("VM2", 3, 1), ("10.32.0.2", 1, 0),
            ("www", 1, 0), ("nothing-like-it", 0, 0), ("192.168.56.13", 0, 1), ("", 8, 3),
        ):  # fmt: skip
            await tab.evaluate(
                f"search.value = {text!r}; search.dispatchEvent(new Event('input')); 1"
            )
            both = f"{ROWS.format('containers')} === {containers}"
            await tab.until(f"{both} && {ROWS.format('hosts')} === {hosts}")
        await tab.evaluate("document.querySelector('[data-network=green]').click()")
        await tab.until(f"{ROWS.format('containers')} === 3")
        assert await tab.evaluate(TEXT.format("#details h3")) == "green"
        assert await tab.evaluate("document.querySelectorAll('#picture li.is-found').length") == 3


async def test_what_happens_is_shown_at_once(tab: Tab, tmp_path: Path) -> None:
    """A container, its end, a host, a network, a path; events can be paused."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)
        cluster.endpoints.append(endpoint("fresh", "vm3", "mail", 50))
        cluster.endpoints.pop(0)
        cluster.networks.append(network("mail", 7))
        cluster.members.append(member("vm4", 3))
        cluster.members[2] = member("vm3", 2)
        cluster.health = []
        cluster.notices = [{"text": "a row was repaired", "hint": "overlayd events"}]
        cluster.happen("docker:fresh is 10.32.0.52", network="mail", endpoint="fresh")
        await tab.until("document.querySelector('#picture').textContent.includes('fresh')")

        assert await tab.evaluate(ROWS.format("hosts")) == 4
        assert await tab.evaluate(ROWS.format("containers")) == 8
        assert await tab.evaluate("document.getElementById('problems').hidden")
        assert "a row was repaired" in await tab.evaluate(TEXT.format("#notices"))
        paths = await tab.evaluate(
            "[...document.querySelectorAll('.path')].map(e => e.textContent)"
        )
        assert paths[1:] == ["0.4 ms1500 B", "0.5 ms1500 B", "0.6 ms1500 B"]
        await tab.until("document.querySelector('#events li').textContent.includes('fresh')")
        assert await tab.evaluate("document.getElementById('log').getAttribute('aria-live')") == (
            "polite"
        )
        await tab.evaluate("document.getElementById('pause').click()")
        cluster.happen("while paused")
        await tab.until("document.getElementById('pause').textContent === 'Continue (1 new)'")
        assert "while paused" not in await tab.evaluate(TEXT.format("#events"))
        await tab.evaluate("document.getElementById('pause').click()")
        assert "while paused" in await tab.evaluate(TEXT.format("#events"))


async def test_a_dead_agent_is_told_and_forgotten(tab: Tab, tmp_path: Path) -> None:
    """The picture is marked as old, with what to do; then it is live again."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)
        await cluster.stop()
        await tab.until("document.getElementById('live').textContent === 'Not live'")
        banner = await tab.evaluate(TEXT.format("#banner"))
        assert "What you see is from" in banner
        assert "sudo overlayd join" in banner
        assert await tab.evaluate(ROWS.format("hosts")) == 3

        await cluster.start()
        await tab.until("document.getElementById('live').textContent === 'Live'")
        assert await tab.evaluate(TEXT.format("#banner")) == ""


async def test_a_dead_server_is_told(tab: Tab, tmp_path: Path) -> None:
    """The page stays as it was."""
    async with story(tmp_path / "run") as cluster:
        async with serve(cluster) as site:
            await opened(tab, site)
        await tab.until("document.getElementById('live').textContent === 'Not live'")
        assert "overlayd web does not answer" in await tab.evaluate(TEXT.format("#banner"))
        assert await tab.evaluate(ROWS.format("hosts")) == 3


async def test_signing_in_leaves_no_token(tab: Tab, tmp_path: Path) -> None:
    """Neither in the address nor where scripts could read it."""
    async with story(tmp_path / "run") as cluster, serve(cluster, TOKEN) as site:
        await tab.open(site.url)
        await tab.until("location.pathname === '/sign-in'")
        await tab.evaluate("document.activeElement.value = 'wrong'; document.forms[0].submit(); 1")
        await tab.until(
            "document.querySelector('[role=alert]')?.textContent.includes('not the token')"
        )
        await tab.evaluate(f"token.value = {TOKEN!r}; document.forms[0].submit(); 1")
        await tab.until("location.pathname === '/'")
        await tab.until(f"{ROWS.format('hosts')} === 3")

        assert await tab.evaluate("document.cookie") == ""
        history = await tab.call("Page.getNavigationHistory")
        assert TOKEN not in str(history)
        await tab.evaluate("document.querySelector('#sign-out button').click()")
        await tab.until("location.pathname === '/sign-in'")


async def test_a_large_cluster_is_whole(tab: Tab, tmp_path: Path) -> None:
    """500 containers on 50 hosts, as marks; every change is shown, and nothing is left behind."""
    async with large(tmp_path / "run") as cluster, serve(cluster) as site:
        await opened(tab, site)
        assert await tab.evaluate("document.querySelectorAll('#picture li').length") == 500
        assert await tab.evaluate(ROWS.format("containers")) == 500
        assert await tab.evaluate("document.querySelector('.is-dense') !== null")
        for number in range(20):
            cluster.endpoints.pop(number)
            cluster.endpoints.append(
                endpoint(f"n{number}", f"vm{number + 1}", "blue", 900 + number)
            )
            cluster.happen(f"docker:n{number} is there")
        await tab.until("document.querySelector('#events').childElementCount === 20")
        await tab.until("document.querySelector('#containers-table').textContent.includes('n19')")
        await tab.until("document.querySelectorAll('#picture li').length === 500")
        assert await tab.evaluate(ROWS.format("containers")) == 500


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark"), (320, "light")])
async def test_every_text_can_be_read(tab: Tab, tmp_path: Path, width: int, scheme: str) -> None:
    """The page is never wider than the window, and texts differ enough from what is behind."""
    async with story(tmp_path / "run") as cluster, serve(cluster) as site:
        await tab.size(width, 800)
        await tab.prefer(prefers_color_scheme=scheme)
        await opened(tab, site)
        assert await tab.evaluate("document.documentElement.scrollWidth") <= width
        found: list[Any] = await tab.evaluate(CONTRAST)
        await tab.size(1440, 900)
        await tab.prefer(prefers_color_scheme="light")

        assert len(found) > 40
        assert [each for each in found if each[1] < 4.5] == []


# The contrast of each visible text, by https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const light = (color, behind) => {
    canvas.fillStyle = behind; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) =>
      part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)') return color;
    }
    return 'white';
  };
  return [...document.querySelectorAll('body *')].filter((node) => node.checkVisibility() &&
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())
  ).map((node) => {
    const back = behind(node);
    const [a, b] = [light(getComputedStyle(node).color, back), light(back, back)];
    return [node.textContent.slice(0, 30), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
})()"""
