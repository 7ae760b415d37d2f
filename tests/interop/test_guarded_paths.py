"""nginx behind two tunnels of one host, one of which asks who comes: whatever nginx makes of a path, it is asked."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from otun import TcpAddress, TunnelSettings, open_tunnels

from ..access.logins import authorization, cheap_login
from ..http.test_paths import TRICKS
from ..server.visitors import fetch
from .conftest import lack
from .support import Start, connect
from .tenants import Tenants, host

pytestmark = pytest.mark.interop

CONFIGURATION: Final = """\
daemon off; master_process off; pid nginx.pid; error_log stderr crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "open"; }}
        location /admin {{ return 200 "secret"; }}
        location ~* ^/admin {{ return 200 "secret"; }}
    }}
}}
"""

MORE: Final = [
    "/admin",
    "/admin/x",
    "/x/%2e%2e/%61dmin/",
    "/./%2e/admin",
    "/%2F%2Fadmin",
    "/x/y/../../admin?z",
    "/aDMIN",
]


@attrs.frozen
class Site:
    """nginx itself, and the server before it."""

    nginx: TcpAddress
    public: TcpAddress


@pytest.fixture
async def site(tenants: Tenants, start: Start, free_port: Callable[[], int], tmp_path: Path, nursery) -> Site:
    executable = shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if executable is None:
        lack("nginx is not installed (nginx-light)")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(CONFIGURATION.format(port=port))
    await start(executable, "-p", tmp_path, "-c", "nginx.conf", "-e", "stderr")
    await (await connect(port)).aclose()
    nginx = TcpAddress("127.0.0.1", port)
    guarded = TunnelSettings(name="one", path="/admin", basic_auth=[cheap_login("ann", "s3cret")])
    await nursery.start(forward_both, tenants.server.control, nginx, [TunnelSettings(name="one"), guarded])
    return Site(nginx, tenants.server.public)


async def forward_both(
    control: TcpAddress, local: TcpAddress, settings: list[TunnelSettings], *, task_status: trio.TaskStatus[None]
) -> None:
    """Open tunnels over one session, and relay their visitors until the server ends."""
    async with open_tunnels(control, settings) as tunnels, trio.open_nursery() as nursery:
        for tunnel in tunnels:
            nursery.start_soon(tunnel.forward_to, local)
        task_status.started()


async def test_what_nginx_takes_for_guarded_is_guarded(site: Site) -> None:
    led_to_it = 0
    for path in [*TRICKS, *MORE]:
        direct = await fetch(site.nginx, path, "Connection: close")
        answer = await fetch(site.public, path, "Connection: close", host=host("one"))
        led_to_it += direct.body == b"secret"
        assert answer.body != b"secret", path
        if direct.body == b"secret":
            assert answer.status in (400, 401), path
    assert led_to_it > 15


async def test_who_is_logged_in_gets_it_and_honest_paths_stay_open(site: Site) -> None:
    field = authorization("ann", "s3cret")
    assert (await fetch(site.public, "/admin/x", field, host=host("one"))).body == b"secret"
    for path in ("/", "/x", "/a%20b/admin", "/x/../y", "/admirer"):
        assert (await fetch(site.public, path, host=host("one"))).body == b"open"
