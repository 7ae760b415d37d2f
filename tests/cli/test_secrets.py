"""A whole system at work and failing, and not one of its secrets in what can be read of it."""

import base64
import json
import re
import signal
import sqlite3
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from otun import OtunError, Trust, open_session, open_tunnel
from otun.access import hash_token
from otun.mux import SessionClosed
from otun.tls.fingerprints import Fingerprint

from ..server.raw_client import RawClient
from .running import RunningServer, run_client, run_server, see_tunnel, visit

if TYPE_CHECKING:
    from .conftest import Ended, Program

    Start = Callable[..., Program]

PLAIN = "plain-token-Wm7Qx2"
IN_FILE = "token-in-a-file-Kd83Lp"
PASSWORD = "correct-horse-Zt55Vb"
HEADER = "header-value-Nq91Rf"

WRONG_TOKEN, WRONG_PASSWORD, WRONG_HEADER = "wrong-token-Ju30Ye", "wrong-password-Po62Ms", "wrong-header-Cx48Ia"
"""What is wrong is a secret, too: it may be another system's."""

SECRETS = (PLAIN, IN_FILE, PASSWORD, HEADER, WRONG_TOKEN, WRONG_PASSWORD, WRONG_HEADER)

EVERYWHERE = "0.0.0.0:0"


@attrs.define(eq=False)
class System:
    """All programs that were started, what they have said, and the secrets in play."""

    start: "Start"
    secrets: set[str] = attrs.Factory(
        lambda: {PLAIN, IN_FILE, PASSWORD, HEADER, WRONG_TOKEN, WRONG_PASSWORD, WRONG_HEADER}
    )
    said: list[str] = attrs.Factory(list)

    def __call__(self, *arguments: str) -> "Program":
        program = self.start(*arguments)
        path = Path(f"/proc/{program.process.pid}/cmdline")
        if path.exists():
            self.said.append(path.read_text())
        return program

    def keep(self, ended: "Ended") -> "Ended":
        self.said += [ended.stdout, ended.stderr]
        return ended

    def token(self, *arguments: str) -> str:
        """Run `otun token`, which prints a secret, and nothing else that is one."""
        ended = self("token", *arguments, "--log-level", "debug").wait()
        assert ended.code == 0, ended.stderr
        self.said.append(ended.stderr)
        secret = ended.stdout.strip()
        if secret:
            self.secrets.add(secret)
        return secret

    def forms(self) -> set[bytes]:
        """The secrets in all the forms in which they could turn up."""
        found = set()
        for secret in self.secrets:
            login = base64.b64encode(f"ann:{secret}".encode()).decode()
            found |= {secret, secret[8:24], login, hash_token(secret).hex(), json.dumps(secret)[1:-1]}
        return {text.encode() for text in found}


@pytest.fixture
def system(start: "Start") -> System:
    return System(start)


async def take_over(system: System, server: RunningServer, token: str) -> None:
    """Have a session, take its place with its secret, with a wrong one, and say what nobody understands."""
    trust = Trust(fingerprint=Fingerprint.parse(server.fingerprint))
    async with open_tunnel(server.control, name="resumed", token=token, trust=trust) as old:
        system.secrets.add(old.resume_secret)
        system.said.append(repr(old))
        secret = old.resume_secret
        async with open_tunnel(server.control, name="resumed", token=token, trust=trust, resume=secret) as new:
            system.secrets.add(new.resume_secret)
            with pytest.raises(SessionClosed) as ended:
                await old.accept()
            wrong = new.resume_secret[:-2] + "__"
            system.secrets.add(wrong)
            with pytest.raises(OtunError) as refused:
                await open_for_a_moment(server, trust, token, wrong)
    system.said += [repr(ended.value), str(refused.value)]


async def open_for_a_moment(server: RunningServer, trust: Trust, token: str, resume: str) -> None:
    async with open_tunnel(server.control, name="resumed", token=token, trust=trust, resume=resume):
        pass


async def say_nonsense(system: System, server: RunningServer) -> None:
    """Send messages with secrets where none belong."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = server.control.rpartition(":")
    for message in (
        {"type": "register", "token": [PLAIN]},
        {"type": "register", "token": PLAIN, "resume": {PLAIN: PLAIN}},
        {"type": "register", "token": PLAIN, "basic_auth": [f"ann:{PASSWORD}"]},
        {"type": "register", "token": PLAIN, "require_header": [f"X Key: {HEADER}"]},
        {"type": "register", "token": PLAIN, "subdomain": 5},
        {"type": "register", "token": PLAIN, "kind": "nonsense", "resume": PLAIN},
        f'{{"type": "register", "token": "{PLAIN}", }}\n'.encode(),
        f'{{"type": "register", "token": "{PLAIN}\n"}}\n'.encode(),
    ):
        tcp = await trio.open_tcp_stream(host, int(port))
        transport = trio.SSLStream(tcp, context, server_hostname="x", https_compatible=True)
        async with open_session(transport, "client") as session:
            client = RawClient(session, transport, await session.open_stream())
            await client.say(message)
            answer = await client.hear()
            assert answer["type"] == "error", answer
            system.said.append(str(answer))


def login(password: str) -> str:
    return "Basic " + base64.b64encode(f"ann:{password}".encode()).decode()


def test_no_secret_is_in_any_output_log_or_file_or_in_the_process_list(
    system: System, tmp_path: Path, local_port: int, environment: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    environment.setenv("OTUN_STATE", str(state))
    flags = ["--state", str(state), "--log-level", "debug", "--reservation", "1d"]

    # Mistakes in settings.
    (tmp_path / "c.toml").write_text(f'[client]\ntoken = "{PLAIN}"\nbasic_auth = ["{PASSWORD}"]\nserver = {PLAIN}\n')
    (tmp_path / "d.toml").write_text(f'[client]\nserver = "x"\ntokn = "{PLAIN}"\nbasic_auth = ["ann{PASSWORD}"]\n')
    mistaken = [
        system(*command, "--config", str(tmp_path / file))
        for command in (["http", "9"], ["server"])
        for file in ("c.toml", "d.toml")
    ]
    assert [system.keep(program.wait()).code for program in mistaken] == [2] * 4

    # The first start.
    server = run_server(system, *flags, control=EVERYWHERE)
    first = server.read_token_file().read_text().strip()
    system.secrets.add(first)
    system.keep(server.stop())

    # The second, with tokens of all kinds.
    (tmp_path / "keys").write_text(f"{IN_FILE}\n")

    def serve() -> RunningServer:
        with environment.context() as patch:
            patch.setenv("OTUN_TOKENS", PLAIN)
            server = run_server(system, *flags, "--tokens-file", str(tmp_path / "keys"), control=EVERYWHERE)
        system.said += server.lines.values()
        return server

    server = serve()
    ci, gone = system.token("create", "ci"), system.token("create", "gone")

    def client(token: str, *arguments: str, service: int = local_port, **variables: str) -> "Program":
        with environment.context() as patch:
            for name, value in {"OTUN_TOKEN": token, **variables}.items():
                patch.setenv(name, value)
            return run_client(system, server, "http", str(service), "--log-level", "debug", *arguments)

    guarded = client(ci, "--name", "guarded", OTUN_BASIC_AUTH=f"ann:{PASSWORD}", OTUN_REQUIRE_HEADER=f"X-Key: {HEADER}")
    broken = client(IN_FILE, "--name", "broken", service=1)
    leaving = client(gone, "--name", "leaving")
    url, broken_url, _ = (see_tunnel(each) for each in (guarded, broken, leaving))

    # Visitors.
    statuses = [
        visit(server, url, "/?q=1", X_Key=key, Authorization=login(password))[0]
        for key, password in ((HEADER, PASSWORD), (HEADER, WRONG_PASSWORD), (WRONG_HEADER, PASSWORD))
    ]
    assert statuses == [200, 401, 403]
    assert visit(server, broken_url, "/", Authorization=login(PASSWORD))[0] == 502

    # Clients that are sent away, and one that is left.
    system.token("revoke", "gone")
    assert "token" in system.keep(leaving.wait()).stderr
    with closing(sqlite3.connect(state / "otun.db")) as connection:
        connection.execute("UPDATE tokens SET expires = ? WHERE name = 'ci'", (int(time.time()),))
        connection.commit()
    assert "token" in system.keep(guarded.wait()).stderr
    system.keep(server.stop())
    assert system.keep(broken.signal(signal.SIGTERM)).code == 0

    # The third start, and clients that are refused.
    server = serve()
    system.secrets.add(f"{ci[:-4]}AAAA")
    refused = [client(token) for token in (WRONG_TOKEN, f"{ci[:-4]}AAAA", "", ci)]
    refused.append(client(first, "--name", "guarded"))
    assert all(system.keep(program.wait()).code not in (0, 1) for program in refused)
    trio.run(take_over, system, server, PLAIN)
    trio.run(say_nonsense, system, server)
    system.token("rotate", "first")
    system.keep(server.stop())
    for query in ("list", "show ci"):
        system.keep(system("token", *query.split()).wait())

    files = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert state / "first-token" not in files  # It is of no use any more.
    everything = "\n".join(system.said).encode()
    assert re.search(rb"opened tunnel guarded", everything), "the log is missing"
    assert len(system.secrets) > 14
    for secret in system.forms():
        assert secret not in everything, f"{secret!r} in {everything[everything.index(secret) - 300 :][:600]!r}"
        assert not [path for path, data in files.items() if secret in data]
