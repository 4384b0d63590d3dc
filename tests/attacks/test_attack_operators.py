"""Whoever wants to be an operator and is none: every token, code, state and cookie that is not right is refused, and so is a password alone."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from kakoi.core.errors import Misuse
from kakoi.guard.stream import FILE, Stream
from kakoi.hub.operators.settings import read_operators
from kakoi.hub.serve import running
from kakoi.hub.settings import Listener, Settings
from support.identity_provider import CLIENT, TWO_FACTORS, signed, unsigned, with_hmac
from support.operators import ACR, AMR, Browser, Scene, code_of, configure, scene


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("operators") / "hub") as made:
        yield made


@pytest.fixture(autouse=True)
def _untwisted(stage: Scene) -> Iterator[None]:
    """Tests of one scene share its budget of attempts, which is another test's matter."""
    stage.server.operations.attempts.__init__(1e6, 1e6, time.monotonic)  # type: ignore[misc]
    yield
    stage.issuer.twist = None


Claims = dict[str, Any]


def claims(**changes: Any) -> Callable[[Scene], Callable[[Claims, Claims], str | None]]:
    """A token with other claims; None: without that claim."""

    def of(stage: Scene) -> Callable[[Claims, Claims], str | None]:
        def twist(header: Claims, found: Claims) -> None:
            for name, value in changes.items():
                if value is None:
                    found.pop(name, None)
                else:
                    found[name] = value(found) if callable(value) else value

        return twist

    return of


def header(**changes: Any) -> Callable[[Scene], Callable[[Claims, Claims], str | None]]:
    """A token with other header members."""

    def of(stage: Scene) -> Callable[[Claims, Claims], str | None]:
        return lambda head, found: head.update(changes)

    return of


def alg_none(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    return unsigned


def hmac_with_the_public_key(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    return lambda head, found: with_hmac(head, found, stage.issuer.public_pem)


def foreign_key(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    other = RSAKey.generate_key(2048, {"kid": "first"}, private=True)
    return lambda head, found: signed(head, found, other)


def foreign_key_in_the_header(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    other = RSAKey.generate_key(2048, private=True)
    return lambda head, found: signed({**head, "jwk": other.as_dict(private=False)}, found, other)


def altered_claims(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    def twist(head: Claims, found: Claims) -> str:
        good, better = (signed(head, {**found, "sub": sub}, stage.issuer.key) for sub in ("s-9", "s-1"))
        return ".".join((better.split(".")[0], better.split(".")[1], good.split(".")[2]))

    return twist


def cut(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    return lambda head, found: signed(head, found, stage.issuer.key).rpartition(".")[0]


def huge(stage: Scene) -> Callable[[Claims, Claims], str | None]:
    return lambda head, found: signed(head, {**found, "x": "y" * 20_000}, stage.issuer.key)


NOW = time.time
TWINS: list[tuple[str, Callable[[Scene], Callable[[Claims, Claims], str | None]], str]] = [
    ("alg none", alg_none, "operators.algorithm"),
    ("HMAC with the public key as the secret", hmac_with_the_public_key, "operators.algorithm"),
    ("another algorithm of the same key", header(alg="RS512"), "operators.algorithm"),
    ("key of another issuer, same kid", foreign_key, "operators.signature"),
    ("a key in the header", foreign_key_in_the_header, "operators.token"),
    ("a key's address in the header", header(jku="https://mallory.example/keys"), "operators.token"),
    ("a critical header", header(crit=["exp"]), "operators.token"),
    ("a kid that nobody publishes", header(kid="other"), "operators.key"),
    ("no kid", header(kid=None), "operators.token"),
    ("another type of token", header(typ="at+jwt"), "operators.token"),
    ("claims of one token, signature of another", altered_claims, "operators.signature"),
    ("cut", cut, "operators.token"),
    ("huge", huge, "operators.token"),
    ("another issuer", claims(iss="https://mallory.example"), "operators.issuer"),
    ("no issuer", claims(iss=None), "operators.issuer"),
    ("issuer with a slash more", claims(iss=lambda found: found["iss"] + "/"), "operators.issuer"),
    ("for another client", claims(aud=["other"]), "operators.audience"),
    ("for others too", claims(aud=[CLIENT, "other"]), "operators.audience"),
    ("for nobody", claims(aud=None), "operators.audience"),
    ("given to another client", claims(azp="other"), "operators.audience"),
    ("expired", claims(exp=lambda found: int(NOW()) - 60), "operators.expired"),
    ("never expires", claims(exp=None), "operators.token"),
    ("issued long ago", claims(iat=lambda found: int(NOW()) - 3600), "operators.expired"),
    ("issued in the future", claims(iat=lambda found: int(NOW()) + 300), "operators.expired"),
    ("not valid yet", claims(nbf=lambda found: int(NOW()) + 300), "operators.expired"),
    ("time as a text", claims(exp="2999999999"), "operators.token"),
    ("signed in there yesterday", claims(auth_time=lambda found: int(NOW()) - 86400), "operators.expired"),
    ("no time of signing in", claims(auth_time=None), "operators.token"),
    ("nonce of another sign-in", claims(nonce="other"), "operators.nonce"),
    ("no nonce", claims(nonce=None), "operators.nonce"),
    ("a password only, by amr", claims(amr=["pwd"]), "operators.factors"),
    ("a password only, by acr", claims(acr="urn:example:password"), "operators.factors"),
    ("no word about factors", claims(amr=None, acr=None), "operators.factors"),
    ("factors as one text", claims(amr="pwd otp"), "operators.factors"),
    ("acr of another case", claims(acr=TWO_FACTORS.upper()), "operators.factors"),
    ("another person", claims(sub="s-9"), "operators.stranger"),
    ("an operator's name as subject", claims(sub="田中愛子"), "operators.stranger"),
    ("no subject", claims(sub=None), "operators.stranger"),
]


def test_a_right_token_is_taken(stage: Scene) -> None:
    browser = stage.browser()
    assert browser.sign_in().status_code == 200
    assert "田中愛子" in browser.get("/").text


@pytest.mark.parametrize(("twin", "code"), [(twin, code) for _, twin, code in TWINS], ids=[name for name, *_ in TWINS])
def test_a_token_that_is_not_right(stage: Scene, twin: Any, code: str) -> None:
    stage.issuer.twist = twin(stage)
    browser = stage.browser()
    answer = browser.sign_in()
    assert code_of(answer) == code
    assert answer.status_code in (400, 403)
    assert browser.get("/").url.path == "/sign-in"


def test_a_password_alone_is_not_enough(stage: Scene) -> None:
    """Not twisted: the provider itself says how somebody signed in."""
    assert code_of(stage.browser().sign_in(second=False)) == "operators.factors"


def test_somebody_with_an_account_but_no_operator(stage: Scene) -> None:
    assert code_of(stage.browser().sign_in("mallory")) == "operators.stranger"


def test_codes_and_states_work_once_and_for_one_browser(stage: Scene) -> None:
    mine, other = stage.browser(), stage.browser()
    back = mine.at_issuer("aiko").headers["location"]
    assert code_of(other.send("GET", back)) == "operators.state", "another browser's answer"
    other.at_issuer("ben")
    assert code_of(other.send("GET", back)) == "operators.state", (
        "sign-in of one browser, state of another (login CSRF)"
    )
    cookie = dict(mine.cookies)
    assert mine.send("GET", back).status_code == 200
    mine.cookies |= cookie
    assert code_of(mine.send("GET", back)) == "operators.state", "the same answer twice"
    again = stage.browser()
    fresh = again.at_issuer("aiko").headers["location"]
    replayed = fresh.replace(code_in(fresh), code_in(back))
    assert code_of(again.send("GET", replayed)) == "operators.provider", "a used code at a fresh state"


def code_in(url: str) -> str:
    """The authorization code that a browser brings back."""
    return url.partition("code=")[2].partition("&")[0]


def test_a_code_of_another_sign_in_lacks_its_verifier(stage: Scene) -> None:
    """PKCE: a code that somebody caught on the way is worth nothing in a sign-in of their own."""
    victim, thief = stage.browser(), stage.browser()
    caught, own = (one.at_issuer("aiko").headers["location"] for one in (victim, thief))
    stolen = own.replace(code_in(own), code_in(caught))
    assert code_of(thief.send("GET", stolen)) == "operators.provider"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("error=access_denied", "operators.declined"),
        ("", "operators.declined"),
        ("code=a&iss=https://mallory.example", "operators.issuer"),
        ("code=a&code=b", "operators.form"),
        ("code=guessed", "operators.provider"),
    ],
)
def test_answers_that_are_none(stage: Scene, query: str, code: str) -> None:
    browser = stage.browser()
    page = browser.get("/sign-in/begin")
    state = page.url.params["state"]
    assert code_of(browser.get(f"/signed-in?state={state}&{query}")) == code


def test_keys_that_the_issuer_changes(stage: Scene) -> None:
    old = stage.issuer.key
    try:
        stage.server.operations.provider._asked_at = float("-inf")  # as after ten seconds
        for kind in ("EC", "RSA"):
            stage.issuer.rotate(kind=kind)
            assert stage.browser().sign_in().status_code == 200, "a new key is found"
            stage.server.operations.provider._asked_at = float("-inf")
        stage.issuer.key = old
        assert code_of(stage.browser().sign_in()) == "operators.key", "a withdrawn key is gone"
        asked = stage.issuer.asked_for_keys
        for _ in range(3):
            assert code_of(stage.browser().sign_in()) == "operators.key"
        assert stage.issuer.asked_for_keys == asked, "unknown keys do not make the hub knock at the issuer's door"
    finally:
        stage.issuer.key = old
        stage.issuer.published = [old]
        stage.server.operations.provider._asked_at = float("-inf")


def test_a_session_is_one_browsers_and_ends(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = stage.browser()
    answer = browser.sign_in()
    (line,) = (line for line in answer.headers.get_list("set-cookie") if "-session-" in line)
    assert line.startswith("__Host-")
    assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(line.split("; "))
    thief = stage.browser(agent="another browser")
    thief.cookies = dict(browser.cookies)
    assert thief.get("/").url.path == "/sign-in"
    assert browser.get("/").url.path == "/sign-in", "a session that was seen elsewhere is over"
    for seconds, alive in ((590, True), (590, True), (611, False)):
        if not alive or seconds == 590:
            browser.sign_in()
        clock = time.monotonic() + seconds
        monkeypatch.setattr(stage.server.operations.sessions, "_clock", lambda clock=clock: clock)
        assert (browser.get("/").url.path == "/") is alive, seconds
        monkeypatch.setattr(stage.server.operations.sessions, "_clock", time.monotonic)


def test_signing_out(stage: Scene) -> None:
    browser = stage.browser()
    browser.sign_in()
    cookies = dict(browser.cookies)
    answer = browser.act("/sign-out")
    assert stage.issuer.issuer + "/logout?client_id=kakoi-hub" in answer.text
    browser.cookies = cookies
    assert browser.get("/").url.path == "/sign-in"


def test_forms_of_other_sites_and_sessions(stage: Scene) -> None:
    browser, other = stage.browser(), stage.browser()
    browser.sign_in()
    other.sign_in("ben")
    assert code_of(browser.post("/collect", {"what": "count"})) == "session.csrf"
    assert code_of(browser.post("/collect", {"what": "count", "csrf": other.csrf()})) == "session.csrf"
    good = {"what": "count", "csrf": browser.csrf()}
    assert browser.post("/collect", good, origin="https://mallory.example").status_code == 403
    assert browser.post("/collect", good, **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.post("/collect", good).status_code == 200
    assert code_of(stage.browser().post("/collect", good)) == "session.none"
    assert browser.get("/", headers={"host": "mallory.example"}).status_code == 421


def test_a_viewer_changes_nothing(stage: Scene) -> None:
    browser = stage.browser()
    browser.sign_in("ben")
    for path, fields in (
        ("/collect", {"what": "delete"}),
        ("/parties/quota", {"party": "0" * 64, "megabytes": "1"}),
        ("/parties/networks", {"party": "0" * 64, "networks": "192.0.2.0/24"}),
    ):
        assert code_of(browser.act(path, **fields)) == "hub.denied", path
    assert "/collect" not in browser.get("/").text


def test_what_operators_do_is_on_record(stage: Scene, tmp_path: Path) -> None:
    browser = stage.browser()
    browser.sign_in()
    browser.act("/collect", what="count")
    browser.act("/sign-out")
    assert code_of(stage.browser().sign_in(second=False)) == "operators.factors"
    wanted = {
        ("operator.sign-in", "田中愛子", ""),
        ("operator.action", "田中愛子", ""),
        ("operator.sign-in", "", "operators.factors"),
    }
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not wanted <= (seen := recorded(stage)):
        time.sleep(0.1)
    assert wanted <= seen


def recorded(stage: Scene) -> set[tuple[str, str, str]]:
    with closing(
        Stream(stage.server.hub.settings.directory / FILE, name="", component="client", now=0, look=False)
    ) as stream:
        found = set()
        for event in stream.newest(limit=1000):
            user = (event.get("actor", {}).get("user") or event.get("user") or {}).get("name", "")
            found.add((event["metadata"]["event_code"], user.replace("unknown", ""), event.get("status_code", "")))
        return found


def test_many_attempts_are_slowed_down(stage: Scene) -> None:
    stage.server.operations.attempts.__init__(0.001, 3, time.monotonic)  # type: ignore[misc]
    browser = stage.browser()
    codes = [browser.get("/sign-in/begin").status_code for _ in range(4)]
    assert codes == [200, 200, 200, 429]


def test_each_door_leads_to_its_own_rooms(stage: Scene) -> None:
    """No page, metric or object is reached through another listener."""
    hub, port = stage.server.hub, stage.server.metrics_port
    api, metrics = stage.server.url.replace("127.0.0.1", "localhost"), f"http://localhost:{port}"
    inside = stage.browser()
    inside.sign_in()
    for path in (
        "/",
        "/sign-in",
        "/parties",
        "/status.json",
        "/signed-in",
        "/static/console.css",
        "/metrics",
        "/livez",
    ):
        browser = Browser(stage, base=api)
        browser.cookies = dict(inside.cookies)
        assert browser.get(path).status_code == 401, path
        if path not in ("/metrics", "/livez"):
            assert Browser(stage, base=metrics).get(path).status_code == 404, path
    for path in ("/v1/health", "/v1/feed", "/metrics", "/livez", "/readyz"):
        assert code_of(inside.get(path)) == "operators.not-found", path
        if path.startswith("/v1"):
            assert Browser(stage, base=metrics).get(path).status_code == 404, path
    assert Browser(stage, base=metrics).get("/metrics").status_code == 200
    assert Browser(stage, base=api).get("/v1/health").status_code == 200
    assert len({hub.settings.port, port, stage.server.operations.port}) == 3


def test_without_operators_there_are_no_pages(tmp_path: Path) -> None:
    with pytest.raises(Misuse) as caught, running(Settings(directory=tmp_path, port=0, operations=Listener())):
        pass
    assert caught.value.code == "operators.settings"


def test_listeners_that_would_be_open(tmp_path: Path) -> None:
    for name in ("operations", "metrics"):
        for place, code in (
            (Listener(host="0.0.0.0"), "hub.plain-http"),  # noqa: S104
            (Listener(host="0.0.0.0", tls_certificate=tmp_path / "c", tls_key=tmp_path / "k"), "hub.allow"),  # noqa: S104
            (Listener(allow=("127.0.0.1/8",)), "hub.allow"),
            (Listener(tls_key=tmp_path / "k"), "hub.tls"),
            (Listener(tls_client_ca=tmp_path / "ca"), "hub.tls"),
        ):
            doors: Any = {name: place}
            settings = Settings(directory=tmp_path, port=0, **doors)
            with pytest.raises(Misuse) as caught, running(settings):
                pass
            assert caught.value.code == code, (name, place)


def test_lists_of_networks_for_operations_and_metrics(tmp_path: Path) -> None:
    elsewhere = Listener(allow=("192.0.2.0/24",))
    configure(tmp_path / "hub", "https://sso.example", ("s", "Sakura", "viewer"))
    with running(Settings(directory=tmp_path / "hub", port=0, operations=elsewhere, metrics=elsewhere)) as server:
        here = Scene(server=server, issuer=None, chief=None, viewer=None)  # type: ignore[arg-type]
        assert Browser(here).get("/sign-in").status_code == 403
        with pytest.raises(Exception, match=r"disconnected|reset|closed"):
            Browser(here, base=f"http://localhost:{server.metrics_port}").get("/metrics")


GOOD = (
    f'issuer = "https://sso.example"\nclient_id = "kakoi"\n{AMR}\n[operators."s"]\nname = "Sakura"\nrole = "viewer"\n'
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (AMR, ""),
        (AMR, "amr = []"),
        (AMR, 'amr = [["pwd"]]'),
        (AMR, 'amr = [["pwd", "pin", "kba"], ["otp"]]'),
        (AMR, 'amr = ["otp"]'),
        (AMR, "amr = [[]]"),
        ("https://sso", "http://sso"),
        ("https://sso.example", "https://user@sso.example"),
        ("https://sso.example", "https://sso.example?tenant=1"),
        ('role = "viewer"', 'role = "root"'),
        ('role = "viewer"', ""),
        ('[operators."s"]\nname = "Sakura"\nrole = "viewer"\n', ""),
        ('client_id = "kakoi"', ""),
        ('client_id = "kakoi"', 'client_id = "kakoi"\nminutes = 481'),
        ('client_id = "kakoi"', 'client_id = "kakoi"\nsecret = "x"'),
        ('client_id = "kakoi"', 'client_id = "kakoi'),
        ('name = "Sakura"', 'name = "Sak\\u001bura"'),
    ],
)
def test_settings_that_would_let_too_many_in(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "operators.toml"
    path.write_text(GOOD, "utf-8")
    assert read_operators(path).operators["s"].role == "viewer"
    path.write_text(GOOD.replace(old, new), "utf-8")
    assert path.read_text("utf-8") != GOOD
    with pytest.raises(Misuse):
        read_operators(path)


def test_a_secret_that_others_can_read(tmp_path: Path) -> None:
    path = configure(tmp_path, "https://sso.example", ("s", "Sakura", "viewer"), factors=ACR)
    assert read_operators(path).client_secret
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(Misuse) as caught:
        read_operators(path)
    assert caught.value.code == "hub.file-mode"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    path = configure(tmp_path, "https://sso.example", ("s", "Sakura", "viewer"))
    (tmp_path / "secret").write_text(secret := secrets.token_hex(16))
    assert read_operators(path).client_secret == secret
    assert secret not in repr(read_operators(path))
