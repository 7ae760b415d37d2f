"""A browser's pooled connections: each asset of a page comes from the tenant that it was asked of."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Final

import pytest
import trio

from ..server.services import response
from .conftest import lack
from .http_peers import LAST_CHUNK, Origin, Request, chunk, head
from .support import Program, Start
from .tenants import DOMAIN, Serve, Tenants, host
from .websocket_peers import WebSocket, echo

pytestmark = pytest.mark.interop

NAMES: Final = ("one", "two")
ASSETS: Final = 50

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-features=HttpsUpgrades,HttpsFirstBalancedModeAutoEnable",
    "--disable-sync",
)

PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>NAME</title>
<script>const scripts = {}, sites = SITES;</script>
SCRIPTS
</head>
<body>
IMAGES
FRAME
<script>
const urls = sites.flatMap(site => Array.from({length: ASSETS}, (_, number) => `${site}/${number}.js`));

async function fetchAll(cache) {
    const pairs = urls.map(async url => [url, (await (await fetch(url, {cache})).text()).split("//")[1]]);
    return Object.fromEntries(await Promise.all(pairs));
}

function converse(site) {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket(site.replace("http:", "ws:") + "/socket");
        socket.onopen = () => socket.send(`I am at ${site}`);
        socket.onmessage = event => { resolve(event.data); socket.close(1000, "bye"); };
        socket.onerror = () => reject(new Error(`no socket at ${site}`));
    });
}

async function look() {
    const report = {name: "NAME", scripts};
    report.images = Object.fromEntries([...document.images].map(image => [image.src, image.naturalWidth]));
    report.anew = await fetchAll("no-store");
    report.revalidated = await fetchAll("no-cache");
    report.sockets = await Promise.all(sites.map(converse));
    return report;
}

window.onload = async () => {
    const report = await look().catch(error => ({name: "NAME", error: String(error)}));
    await fetch("/report", {method: "POST", body: JSON.stringify(report)});
};
</script>
</body>
</html>
"""


def page_of(name: str, port: int) -> bytes:
    """A page with the assets of both tenants.  The one of `one` has the page of `two` in it."""
    sites = [f"http://{host(each)}:{port}" for each in NAMES]
    urls = [f"{site}/{number}" for number in range(ASSETS) for site in sites]
    replacements = {
        "SITES": json.dumps(sites),
        "SCRIPTS": "\n".join(f'<script async src="{url}.js"></script>' for url in urls),
        "IMAGES": "\n".join(f'<img src="{url}.svg" alt="">' for url in urls),
        "FRAME": f'<iframe src="{sites[1]}/"></iframe>' if name == "one" else "",
        "ASSETS": str(ASSETS),
        "NAME": name,
    }
    page = PAGE
    for word, text in replacements.items():
        page = page.replace(word, text)
    return page.encode()


def width(name: str, number: int) -> int:
    """What an image's width says: whose it is, and which."""
    return 100 * (1 + NAMES.index(name)) + number


def says(name: str, number: int) -> str:
    """What an asset says: whose it is, and which; they are of many sizes."""
    return f"{name} {number} " + "." * (number * number * 20)


def asset(name: str, asked: Request) -> bytes:
    """The answer to a request for an asset, framed in one of four ways."""
    number, _, kind = asked.target.removeprefix("/").partition(".")
    etag = f'"{name}-{number}-{kind}"'
    fields = [f"ETag: {etag}", "Access-Control-Allow-Origin: *", "Cache-Control: max-age=600"]
    if asked.fields.get("if-none-match") == etag:
        return head("HTTP/1.1 304 Not Modified", *fields)
    if kind == "svg":
        size = width(name, int(number))
        body = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="5"></svg>'.encode()
        fields.append("Content-Type: image/svg+xml")
    else:
        body = f"scripts[document.currentScript.src] = {name + ' ' + number!r}; //{says(name, int(number))}".encode()
        fields.append("Content-Type: text/javascript")
    if int(number) % 4 >= 2:
        body = gzip.compress(body)
        fields.append("Content-Encoding: gzip")
    if int(number) % 2:
        middle = len(body) // 2
        pieces = chunk(body[:middle]) + chunk(body[middle:])
        return head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *fields) + pieces + LAST_CHUNK
    return response(body, *fields)


def serve_as(name: str, tenants: Tenants, reports: dict[str, object], all_reported: trio.Event) -> Serve:
    """A tenant's site.  Its assets' names are those of the other's."""

    async def serve(origin: Origin) -> None:
        while (asked := await origin.receive_request()) is not None:
            assert asked.fields["host"] == f"{host(name)}:{tenants.port}"
            if asked.target == "/socket":
                fields = [f"{field}: {value}" for field, value in asked.fields.items()]
                received = head("GET /socket HTTP/1.1", *fields) + origin.leave_http()
                await echo(await WebSocket.accept(origin.stream, received=received))
                return
            body = await origin.receive_body()
            match asked.target:
                case "/":
                    await origin.send(response(page_of(name, tenants.port), "Content-Type: text/html"))
                case "/report":
                    reports[name] = json.loads(body)
                    await origin.send(response())
                    if len(reports) == len(NAMES):
                        all_reported.set()
                case "/favicon.ico":
                    await origin.send(response(status="404 Not Found"))
                case _:
                    await origin.send(asset(name, asked))

    return serve


async def run_chromium(start: Start, folder: Path, url: str) -> Program:
    """Have a browser with an empty profile load *url*.  It runs until the test ends."""
    executable = shutil.which("chromium")
    if executable is None:
        lack("chromium is not installed")
    return await start(
        executable,
        *FLAGS,
        f"--user-data-dir={folder}",
        f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1",
        url,
    )


async def test_no_asset_comes_from_the_other_tenant(tenants: Tenants, start: Start, tmp_path: Path) -> None:
    reports: dict[str, object] = {}
    all_reported = trio.Event()
    for name in NAMES:
        await tenants.open(name, serve_as(name, tenants, reports, all_reported))
    browser = await run_chromium(start, tmp_path / "profile", f"http://{host('one')}:{tenants.port}/")

    async def fail_when_it_ends() -> None:
        status = await browser.wait_for_end(limit=None)
        pytest.fail(f"chromium has ended with {status}: {os.linesep.join(browser.errors)}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_when_it_ends)
        await all_reported.wait()
        nursery.cancel_scope.cancel()

    assets = [
        (name, f"http://{host(name)}:{tenants.port}/{number}", number) for name in NAMES for number in range(ASSETS)
    ]
    for name in NAMES:
        assert reports[name] == {
            "name": name,
            "scripts": {f"{url}.js": f"{owner} {number}" for owner, url, number in assets},
            "images": {f"{url}.svg": width(owner, number) for owner, url, number in assets},
            "anew": {f"{url}.js": says(owner, number) for owner, url, number in assets},
            "revalidated": {f"{url}.js": says(owner, number) for owner, url, number in assets},
            "sockets": [f"I am at http://{host(owner)}:{tenants.port}" for owner in NAMES],
        }
