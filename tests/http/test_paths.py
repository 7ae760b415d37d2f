"""What a path may mean to the service behind a tunnel, and to whose tunnel it then belongs."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otun.http.paths import owners_of

OPEN, ADMIN, INNER = 0, 1, 2
PREFIXES = [b"", b"/admin", b"/admin/inner"]


def owners(path: str, prefixes: list[bytes] = PREFIXES) -> set[int]:
    return owners_of(path.encode(), prefixes)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/", OPEN),
        ("*", OPEN),
        ("/admins", OPEN),
        ("/x/admin", OPEN),
        ("/x?/../admin", OPEN),
        ("/x?a=/admin", OPEN),
        ("/files/a%20b.txt", OPEN),
        ("/%E6%97%A5%E6%9C%AC/admin", OPEN),
        ("/a;b=c/d", OPEN),
        ("/Files/Admin", OPEN),
        ("/admin", ADMIN),
        ("/admin/", ADMIN),
        ("/admin?x=1", ADMIN),
        ("/admin/users/1.json", ADMIN),
        ("/admin/inner/x", INNER),
    ],
)
def test_an_honest_path_belongs_to_one(path: str, owner: int) -> None:
    assert owners(path) == {owner}


TRICKS = [
    "//admin",
    "///admin/x",
    "/./admin",
    "/x/../admin",
    "/x/./../admin",
    "/../admin",
    "/../../admin",
    "/x//../admin",
    "/%61dmin",
    "/%2561dmin",
    "/%252561dmin",
    "/adm%69n/x",
    "/x/%2e%2e/admin",
    "/x/%2E%2E/admin",
    "/x/.%2e/admin",
    "/x/%252e%252e/admin",
    "/x%2f..%2fadmin",
    "/%2fadmin",
    "/x/..;/admin",
    "/x/..;a=b/admin",
    "/x;a/..;b/admin",
    "/;/admin",
    "/;x=y/admin",
    "/admin;x",
    "/admin;x=y/z",
    "/admin%3bx",
    "/admin%3fx",
    "/admin%23x",
    "/admin%00",
    "/admin%00.png",
    "/Admin",
    "/ADMIN/x",
    "/%41dmin",
    "/x\\..\\admin",
    "/x%5c..%5cadmin",
    "/\\admin",
    "/admin.",
    "/admin%20",
    "/admin%20.",
    "/admin%09",
    "/x/..%20/admin",
    "/x/..%09/admin",
]


@pytest.mark.parametrize("path", TRICKS)
def test_a_path_that_some_service_takes_for_another_may_belong_to_it(path: str) -> None:
    assert ADMIN in owners(path)


@pytest.mark.parametrize("path", ["/admin/../x", "/admin/..;/x", "/admin/%2e%2e/x", "/admin//../../x", "/admin\\..\\x"])
def test_a_path_that_leaves_its_prefix_may_belong_to_what_is_there(path: str) -> None:
    assert OPEN in owners(path)
    assert 0 in owners_of(path.encode(), [b"", b"/admin"])


def test_a_prefix_is_read_in_the_same_ways() -> None:
    assert owners("/ab", [b"", b"/%61b"]) == {0, 1}
    assert owners("/Ab", [b"", b"/ab"]) == {1}
    assert owners("/ab", [b"", b"/AB"]) == {1}
    assert owners("/ab", [b"/ab", b"/AB"]) == {0, 1}
    assert owners("/x;y/z", [b"", b"/x;y"]) == {1}


def test_a_path_of_very_many_segments_may_be_anything() -> None:
    assert owners("/a" * 200) == {OPEN}
    assert owners("/A" * 200) == {OPEN, ADMIN, INNER}
    assert owners("/x" + "%2f.." * 200) == {OPEN, ADMIN, INNER}


SEGMENTS = st.sampled_from(["x", "", ".", "..", "admin", "inner", ";a", "..;", "Y"])


@given(st.lists(SEGMENTS, max_size=8), st.data())
def test_encoding_hides_nothing(segments: list[str], data: st.DataObject) -> None:
    path = "/" + "/".join(segments)
    hidden = "/"
    for character in path[1:]:
        for _ in range(data.draw(st.integers(0, 2))):
            character = "".join(f"%{ord(letter):02x}" if letter != "%" else "%25" for letter in character)
        hidden += character
    assert owners(path) <= owners(hidden)


@given(st.lists(SEGMENTS, max_size=8))
def test_what_rfc_3986_makes_of_a_path_is_among_its_meanings(segments: list[str]) -> None:
    resolved: list[str] = []
    for segment in segments:
        if segment == "..":
            del resolved[-1:]
        elif segment != ".":
            resolved.append(segment)
    path = "/" + "/".join(resolved)
    if "//" in path or ";" in path:
        return
    (owner,) = owners(path.lower())
    assert owner in owners("/" + "/".join(segments))


@given(st.text(max_size=60), st.binary(max_size=60))
def test_no_path_raises(text: str, data: bytes) -> None:
    owners("/" + quote(text))
    owners_of(b"/" + data, PREFIXES)
    assert owners_of(data, [b""]) == {0}
