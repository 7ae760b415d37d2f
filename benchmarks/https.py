"""Compare visitors by HTTPS with visitors by HTTP, of one server: bulk, requests, new connections, memory.

Everything runs on 127.0.0.1 of one machine; the two take turns.  Bulk is curl's, requests are wrk's, and both do their
own half of TLS on the same cores.  The key is ECDSA P-256, as servers and authorities make them today.
"""

import argparse
import contextlib
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs
from harness import (
    BenchmarkError,
    Missing,
    Program,
    call,
    free_port,
    load_program,
    names_from,
    nginx,
    origin,
    running,
    set_up,
    table,
    wait_until_ready,
)
from measuring import memory_of, request_rate
from peers import STATE, find_otun

SCHEMES: Final = ("http", "https")

_PERIOD: Final = 251  # Of the origin's pattern.


@attrs.frozen
class Options:
    """What the command line asked for; *size* is in bytes."""

    rounds: int
    size: int
    seconds: int
    visitors: int
    tests: Sequence[str]


@attrs.frozen
class Site:
    """A server, one of whose ports is *port*."""

    scheme: str
    port: int
    server: Program
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


def download(site: Site, options: Options) -> float:
    return _curl(site, "speed_download", "-o", "/dev/null", f"{site.url}/down/{options.size}")


def upload(site: Site, options: Options) -> float:
    body = site.folder / "pattern"
    if not body.exists():
        block = bytes((place * 7 + 3) % 256 for place in range(_PERIOD)) * 4096
        with body.open("wb") as file:
            for start in range(0, options.size, len(block)):
                file.write(block[: options.size - start])
    return _curl(site, "speed_upload", "-X", "POST", "-H", "Expect:", "-T", str(body), f"{site.url}/up")


def _curl(site: Site, figure: str, *words: str) -> float:
    out = call(["curl", "-k", "-s", "-S", "-f", "-w", f"\n%{{{figure}}}", *words], 300)
    return float(out.split()[-1]) / 1e6


def requests(connections: int, *fields: str) -> Callable[[Site, Options], float]:
    def measure(site: Site, options: Options) -> float:
        return request_rate(f"{site.url}/", connections, options.seconds, fields)

    return measure


def idle_memory(site: Site, options: Options) -> float:
    """Return the KiB of the server's memory for each visitor that has had one answer and stays."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as stack:

        def visit() -> None:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=30))
            if site.scheme == "https":
                sock = stack.enter_context(context.wrap_socket(sock))
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            sock.recv(4096)

        visit()
        before = memory_of(site.server)
        for _ in range(options.visitors):
            visit()
        time.sleep(1)
        return (memory_of(site.server) - before).rss / options.visitors


@attrs.frozen
class Test:
    """One row of the table."""

    title: str
    service: str
    measure: Callable[[Site, Options], float]


TESTS: Final = {
    "down": Test("download, 1 connection, MB/s", "origin", download),
    "up": Test("upload, 1 connection, MB/s", "origin", upload),
    "requests32": Test("keep-alive requests, 32 at once, /s", "nginx", requests(32)),
    "requests1": Test("keep-alive requests, 1 at once, /s", "nginx", requests(1)),
    "connections": Test("new connections and handshakes, 32 at once, /s", "nginx", requests(32, "Connection: close")),
    "memory": Test("server's memory for an idle visitor, KiB", "nginx", idle_memory),
}


@contextlib.contextmanager
def site(scheme: str, local: int, folder: Path) -> Iterator[Site]:
    """Run a server with both kinds of ports, and a client."""
    from otun.tls.self_made import own_certificate

    STATE.mkdir(parents=True, exist_ok=True)
    control, http, https = free_port(), free_port(), free_port()
    words = ["--control", f"127.0.0.1:{control}", "--http", f"127.0.0.1:{http}", "--https", f"127.0.0.1:{https}"]
    certificate = own_certificate(STATE, "localhost").certificate
    command = [*find_otun(), "server", *words, "--cert", certificate]
    with running("server", command, folder, is_output_read=False) as server:
        wait_until_ready(control, [server], is_http=False)
        client = [*find_otun(), "http", str(local), "--server", f"127.0.0.1:{control}"]
        with running("client", client, folder, is_output_read=False) as program:
            wait_until_ready(http, [server, program])
            yield Site(scheme, https if scheme == "https" else http, server, folder)


def run(options: Options) -> dict[str, dict[str, list[float]]]:
    """All rounds: each service, each scheme, each test."""
    measured: dict[str, dict[str, list[float]]] = {test: {scheme: [] for scheme in SCHEMES} for test in options.tests}
    with tempfile.TemporaryDirectory(prefix="otun-benchmark-") as name:
        folder = Path(name)
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds}", flush=True)
            for service, start in {"origin": origin, "nginx": nginx}.items():
                tests = [test for test in options.tests if TESTS[test].service == service]
                for scheme in SCHEMES if tests else ():
                    with start(folder) as local, site(scheme, local, folder) as running_site:
                        for test in tests:
                            figure = TESTS[test].measure(running_site, options)
                            running_site.server.check_running()
                            print(f"  {scheme} {test}: {figure:,.1f}", flush=True)
                            measured[test][scheme].append(figure)
    return measured


def report(measured: dict[str, dict[str, list[float]]]) -> str:
    rows = []
    for test, figures in measured.items():
        http, https = (statistics.median(figures[scheme]) for scheme in SCHEMES)
        rows.append([TESTS[test].title, f"{http:,.1f}", f"{https:,.1f}", f"{https / http:.2f}" if http else "-"])
    return table(["", *SCHEMES, "https/http"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--size", type=int, default=1_000_000_000, help="bytes of each bulk test (default: 10^9)")
    parser.add_argument("--seconds", type=int, default=3, help="length of the other tests (default: 3)")
    parser.add_argument("--visitors", type=int, default=1000, help="idle visitors (default: 1000)")
    parser.add_argument("--tests", type=names_from(TESTS), default=",".join(TESTS), help=f"of {', '.join(TESTS)}")
    options = Options(**vars(parser.parse_args()))
    set_up()
    try:
        for program in ("wrk", "curl"):
            if shutil.which(program) is None:
                raise Missing(f"{program} is not installed")
        load_program()
        print("\n" + report(run(options)))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted")
