"""A hub with operations pages behind a real OpenID provider, and a browser of few manners for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

import httpx

from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Listener, Settings
from support.identity_provider import CLIENT, SECRET, TWO_FACTORS, Person, Provider, provider

AMR = 'amr = [["pwd", "otp"], ["hwk"]]'
ACR = f'acr = ["{TWO_FACTORS}"]'


@dataclass
class Scene:
    """A hub, who vouches for its operators, and two of them."""

    server: HubServer
    issuer: Provider
    chief: Person
    viewer: Person

    @property
    def url(self) -> str:
        return self.server.operations_url

    def browser(self, **more: Any) -> Browser:
        return Browser(self, **more)


def configure(directory: Path, issuer: str, *people: tuple[str, str, str], factors: str = f"{AMR}\n{ACR}") -> Path:
    """``operators.toml`` of a hub: people as subject, name, role."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "secret").write_text(SECRET + "\n")
    (directory / "secret").chmod(0o600)
    lines = [f'issuer = "{issuer}"', f'client_id = "{CLIENT}"', 'client_secret_file = "secret"', factors]
    for subject, name, role in people:
        lines += [f'[operators."{subject}"]', f'name = "{name}"', f'role = "{role}"']
    path = directory / "operators.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@contextmanager
def scene(directory: Path, **more: Any) -> Iterator[Scene]:
    """All of it, running."""
    with provider() as issuer:
        chief, viewer = Person("s-1", "correct horse"), Person("s-2", "battery staple")
        issuer.people = {"aiko": chief, "ben": viewer, "mallory": Person("s-9", "let me in")}
        people = ("s-1", "田中愛子", "administrator"), ("s-2", "Ben Okafor", "viewer")
        configure(directory, issuer.issuer, *people)
        settings = Settings(
            directory=directory, port=0, limits=Limits(free_bytes=0), operations=Listener(), metrics=Listener(), **more
        )
        with running(settings) as server:
            issuer.client.redirects = {server.operations_url + "/signed-in"}
            yield Scene(server=server, issuer=issuer, chief=chief, viewer=viewer)


class Browser:
    """Follows redirects, keeps this site's cookies as browsers do on localhost, sends forms with Origin."""

    def __init__(self, scene: Scene, *, language: str = "en", agent: str = "test browser", base: str = "") -> None:
        self.base = base or scene.url
        self._scene, self.cookies = scene, dict[str, str]()
        self._headers = {"accept-language": language, "user-agent": agent}

    def send(self, method: str, url: str, *, follow: bool = True, **more: Any) -> httpx.Response:
        headers = {**self._headers, **more.pop("headers", {})}
        with httpx.Client(timeout=60, trust_env=False, verify=False) as client:  # noqa: S501 - no TLS here; reading CAs takes long
            for _ in range(10):
                own = {"cookie": "; ".join(f"{n}={v}" for n, v in self.cookies.items())} if self._mine(url) else {}
                answer = client.request(method, url, headers={**headers, **own}, **more)
                if self._mine(url):
                    self._keep(answer)
                if not follow or not answer.is_redirect:
                    return answer
                method, url, more = "GET", urljoin(url, answer.headers["location"]), {}
                headers.pop("origin", None)
        raise AssertionError("too many redirects")

    def _mine(self, url: str) -> bool:
        return url.startswith(self.base + "/")

    def _keep(self, answer: httpx.Response) -> None:
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.send("GET", self.base + path, **more)

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        given = {"origin": self.base, "content-type": "application/x-www-form-urlencoded", **headers}
        return self.send("POST", self.base + path, content=urlencode(fields or {}), headers=given)

    def at_issuer(self, name: str, *, second: bool = True, start: str = "/sign-in/begin") -> httpx.Response:
        """Sign in at the issuer; its answer is not followed back."""
        page = self.get(start)
        assert page.url.path == "/authorize", page.text
        person = self._scene.issuer.people[name]
        form = {"name": name, "password": person.password, "code": person.code() if second else ""}
        return self.send("POST", str(page.url), data=form, follow=False)

    def sign_in(self, name: str = "aiko", *, second: bool = True) -> httpx.Response:
        return self.send("GET", self.at_issuer(name, second=second).headers["location"])

    def csrf(self, path: str = "/") -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        assert found is not None
        return found[1]

    def act(self, path: str, **fields: str) -> httpx.Response:
        """A form as a page would send it."""
        return self.post(path, {"csrf": self.csrf(), **fields})


def code_of(answer: httpx.Response) -> str:
    """The error code on a page; empty if there is none."""
    found = re.search(r'<p class="mono">([a-z.-]+)</p>', answer.text)
    return found[1] if found else ""
