"""nginx behind the tunnel: keep-alive, ranges, compression, and two tenants on one visitor's connection."""

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from otun import TcpAddress

from ..server.visitors import request
from .conftest import lack
from .http_peers import Response, Visitor
from .support import Start, blocks, connect
from .tenants import Tenants, host

pytestmark = pytest.mark.interop

NAMES: Final = ("one", "two")
LARGE: Final = 1_000_000
TEXT: Final = "".join(f"line {number} of a text\n" for number in range(20_000))

CONFIGURATION: Final = """\
daemon off; master_process off; pid nginx.pid; error_log stderr error;
events {{ worker_connections 512; }}
http {{
    access_log off; keepalive_requests 10000; keepalive_timeout 600s;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    client_max_body_size 100k;
    types {{ text/plain txt; application/octet-stream bin; }}
    gzip on; gzip_types text/plain; gzip_min_length 1; gzip_proxied any; gzip_vary on;
    server {{
        listen 127.0.0.1:{ports[0]}; root one; server_name ~.; add_header X-Host $http_host;
        location = /refused {{ return 403 "not here"; }}
    }}
    server {{
        listen 127.0.0.1:{ports[1]}; root two; server_name ~.; add_header X-Host $http_host;
    }}
}}
"""


@attrs.frozen
class Sites:
    """What nginx serves."""

    tenants: Tenants
    large: dict[str, bytes]

    async def ask(
        self, visitor: Visitor, target: str, *fields: str, name: str = "one", method: str = "GET"
    ) -> tuple[Response, bytes]:
        answer, body = await visitor.ask(request(target, *fields, host=host(name), method=method), method=method)
        assert answer.fields.get("x-host", host(name)) == host(name)
        return answer, body


@pytest.fixture
async def sites(tenants: Tenants, start: Start, free_port: Callable[[], int], tmp_path: Path) -> Sites:
    """One nginx with two sites, each behind a tunnel of its own."""
    executable = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        lack("nginx is not installed (nginx-light)")
    ports = [free_port(), free_port()]
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(ports=ports))
    large: dict[str, bytes] = {}
    for seed, name in enumerate(NAMES):
        root = tmp_path / name
        root.mkdir()
        large[name] = b"".join(blocks(LARGE, seed))
        (root / "large.bin").write_bytes(large[name])
        (root / "text.txt").write_text(f"{name}\n{TEXT}")
        for number in range(50):
            (root / f"{number}.txt").write_text(f"{name} {number} " * number)
    await start(executable, "-p", tmp_path, "-c", "nginx.conf", "-e", "stderr")
    for name, port in zip(NAMES, ports, strict=True):
        await (await connect(port)).aclose()
        await tenants.forward(name, TcpAddress("127.0.0.1", port))
    return Sites(tenants, large)


async def test_50_requests_on_one_connection_alternate_between_two_tenants(sites: Sites) -> None:
    async with sites.tenants.visit() as visitor:
        for number in range(50):
            name = NAMES[number % 2]
            answer, body = await sites.ask(visitor, f"/{number}.txt", name=name)
            assert (answer.status, body.decode()) == (200, f"{name} {number} " * number)
            assert answer.fields["x-host"] == host(name)


async def test_many_connections_each_alternate_between_two_tenants(sites: Sites) -> None:
    async def alternate(start: int) -> None:
        async with sites.tenants.visit() as visitor:
            for number in range(start, start + 15):
                name = NAMES[number % 2]
                if number % 5 == 0:
                    assert (await sites.ask(visitor, "/large.bin", name=name))[1] == sites.large[name]
                else:
                    body = (await sites.ask(visitor, f"/{number}.txt", "Accept-Encoding: gzip", name=name))[1]
                    assert gzip.decompress(body).decode() == f"{name} {number} " * number

    async with trio.open_nursery() as nursery:
        for start in range(1, 31):
            nursery.start_soon(alternate, start)


async def test_ranges(sites: Sites) -> None:
    whole = sites.large["one"]
    async with sites.tenants.visit() as visitor:
        for said, part in {
            "0-0": slice(0, 1),
            "100-299999": slice(100, 300_000),
            "999999-": slice(999_999, None),
            "-5": slice(-5, None),
        }.items():
            answer, body = await sites.ask(visitor, "/large.bin", f"Range: bytes={said}")
            assert (answer.status, body) == (206, whole[part])
            first, end, _ = part.indices(LARGE)
            assert answer.fields["content-range"] == f"bytes {first}-{end - 1}/{LARGE}"
        answer, body = await sites.ask(visitor, "/large.bin", "Range: bytes=0-9, 500-599")
        assert answer.status == 206
        assert answer.fields["content-type"].startswith("multipart/byteranges; boundary=")
        assert int(answer.fields["content-length"]) == len(body)
        assert whole[:10] in body
        assert whole[500:600] in body
        answer, _ = await sites.ask(visitor, "/large.bin", f"Range: bytes={LARGE}-")
        assert (answer.status, answer.fields["content-range"]) == (416, f"bytes */{LARGE}")
        assert (await sites.ask(visitor, "/1.txt"))[1] == b"one 1 "


async def test_compression_is_for_visitor_and_origin_to_agree_on(sites: Sites) -> None:
    async with sites.tenants.visit() as visitor:
        answer, body = await sites.ask(visitor, "/text.txt", "Accept-Encoding: gzip, br")
        assert (answer.fields["content-encoding"], answer.fields["vary"]) == ("gzip", "Accept-Encoding")
        assert "content-length" not in answer.fields  # It comes in chunks.
        assert gzip.decompress(body).decode() == f"one\n{TEXT}"
        answer, body = await sites.ask(visitor, "/text.txt")
        assert "content-encoding" not in answer.fields
        assert body.decode() == f"one\n{TEXT}"
        answer, body = await sites.ask(visitor, "/text.txt", "Accept-Encoding: gzip", method="HEAD")
        assert (answer.status, body) == (200, b"")
        answer, body = await sites.ask(visitor, "/text.txt", "Accept-Encoding: gzip", name="two")
        assert gzip.decompress(body).decode() == f"two\n{TEXT}"


async def test_conditions_and_head(sites: Sites) -> None:
    async with sites.tenants.visit() as visitor:
        answer, body = await sites.ask(visitor, "/large.bin", method="HEAD")
        assert (answer.status, answer.fields["content-length"], body) == (200, str(LARGE), b"")
        etag = answer.fields["etag"]
        answer, body = await sites.ask(visitor, "/large.bin", f"If-None-Match: {etag}")
        assert (answer.status, body) == (304, b"")
        answer, _ = await sites.ask(visitor, "/large.bin", f"If-None-Match: {etag}", name="two", method="HEAD")
        assert answer.status == (304 if answer.fields["etag"] == etag else 200)
        answer, body = await sites.ask(visitor, "/large.bin", f"If-Range: {etag}", "Range: bytes=7-8")
        assert (answer.status, body) == (206, sites.large["one"][7:9])
        answer, body = await sites.ask(visitor, "/nothing")
        assert answer.status == 404
        assert b"nginx" in body
        assert (await sites.ask(visitor, "/refused"))[1] == b"not here"
        assert (await sites.ask(visitor, "/1.txt"))[1] == b"one 1 "


async def test_a_body_that_nginx_finds_too_large_gets_its_413(sites: Sites) -> None:
    async with sites.tenants.visit() as visitor, trio.open_nursery() as nursery:

        async def upload() -> None:
            try:
                await visitor.send(request("/1.txt", "Content-Length: 100000000", host=host("one"), method="POST"))
                while True:
                    await visitor.send(bytes(64 * 1024))
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(upload)
        answer = await visitor.receive_response()
        assert answer.status == 413
        assert b"nginx" in await visitor.receive_body()
        nursery.cancel_scope.cancel()
