"""Starting and stopping a server: addresses, ports, keys, signals."""

import os
import signal
import socket
import threading

import httpx2
import pytest

from compactds.datastore.records import Hits, SearchReport
from compactds.server import ServerSettings, serve, serving
from compactds.server.errors import (
    AddressError,
    InvalidKeyError,
    KeyRequiredError,
    PortInUseError,
    ServeError,
)
from compactds.server.run import _Server, bind, url_of


class EmptyEngine:
    """Hold nothing, and do as told when counted."""

    def __init__(self, when_counted=lambda: None) -> None:
        self.when_counted = when_counted

    def search(self, *_, **__):
        return Hits([], SearchReport("none", 0, 0))

    def get(self, passage_id):
        raise NotImplementedError

    def facets(self, fields, where=None, limit=10):
        raise NotImplementedError

    def count(self, where=None):
        self.when_counted()
        return 0

    def describe(self):
        return {"name": "empty"}


def ask(url: str, path: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False) as http:
        return http.post(url + path, json={}) if path == "/v1/count" else http.get(url + path)


def test_a_server_in_the_background_answers_until_the_block_ends():
    with serving(EmptyEngine(), ServerSettings(port=0)) as url:
        assert ask(url, "/v1/store").json()["name"] == "empty"
    with pytest.raises(httpx2.ConnectError):
        ask(url, "/healthz")


def test_two_servers_in_one_process_take_ports_of_their_own():
    settings = ServerSettings(port=0)
    with serving(EmptyEngine(), settings) as one, serving(EmptyEngine(), settings) as other:
        assert one != other
        assert {ask(url, "/healthz").status_code for url in (one, other)} == {200}


def test_answers_name_no_software():
    with serving(EmptyEngine(), ServerSettings(port=0)) as url:
        assert "server" not in ask(url, "/healthz").headers


def test_a_slow_request_holds_up_no_other():
    entered, go_on = threading.Event(), threading.Event()

    def block():
        entered.set()
        go_on.wait()

    with serving(EmptyEngine(block), ServerSettings(port=0)) as url:
        answers = []
        slow = threading.Thread(target=lambda: answers.append(ask(url, "/v1/count")))
        slow.start()
        entered.wait()
        assert ask(url, "/healthz").status_code == 200
        assert ask(url, "/readyz").status_code == 200
        assert answers == []
        go_on.set()
        slow.join()
        assert answers[0].json() == {"count": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_request_finish_and_serve_return(number):
    answers = []
    engine = EmptyEngine(lambda: os.kill(os.getpid(), number))
    threads = []

    def on_ready(url):
        threads.append(threading.Thread(target=lambda: answers.append(ask(url, "/v1/count"))))
        threads[0].start()

    serve(engine, ServerSettings(port=0), on_ready=on_ready)
    threads[0].join()
    assert [answer.json() for answer in answers] == [{"count": 0}]


def test_serve_needs_nobody_to_tell():
    engine = EmptyEngine()
    settings = ServerSettings(port=free_port())
    thread = threading.Thread(target=lambda: ask_when_ready(settings.port))
    engine.when_counted = lambda: os.kill(os.getpid(), signal.SIGTERM)
    thread.start()
    serve(engine, settings)
    thread.join()


def ask_when_ready(port: int) -> None:
    transport = httpx2.HTTPTransport(retries=20)
    with httpx2.Client(transport=transport, trust_env=False) as http:
        http.post(f"http://127.0.0.1:{port}/v1/count", json={})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_a_port_in_use_is_reported_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for start in (lambda s: serve(EmptyEngine(), s), lambda s: serving(EmptyEngine(), s).__enter__()):
            with pytest.raises(PortInUseError, match=f"port {port} on 127.0.0.1 is in use") as caught:
                start(ServerSettings(port=port))
            assert caught.value.value == port
            assert "another port" in caught.value.remedy


def test_a_port_is_free_again_after_a_server_stopped():
    settings = ServerSettings(port=free_port())
    for _ in range(2):
        with serving(EmptyEngine(), settings) as url:
            assert ask(url, "/healthz").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_beyond_this_machine_needs_a_key(host):
    with pytest.raises(KeyRequiredError, match="no API key") as caught:
        bind(ServerSettings(host=host, port=0))
    assert "127.0.0.1" in caught.value.remedy


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_no_key(key):
    with pytest.raises(KeyRequiredError, match="empty"):
        bind(ServerSettings(port=0, api_key=key))


def test_a_key_with_a_line_break_is_refused_and_not_shown():
    with pytest.raises(InvalidKeyError, match="line break") as caught:
        bind(ServerSettings(host="0.0.0.0", port=0, api_key="sesame\n"))
    assert "sesame" not in str(caught.value)


def test_with_a_key_every_address_is_bound():
    with bind(ServerSettings(host="0.0.0.0", port=0, api_key="sesame")) as listener:
        assert url_of(listener) == f"http://0.0.0.0:{listener.getsockname()[1]}"


def test_answers_are_not_held_back_for_a_fuller_packet():
    with bind(ServerSettings(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # what asyncio sets TCP_NODELAY by


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "127.0.0.1"])
def test_addresses_of_this_machine_alone_need_no_key(host):
    with bind(ServerSettings(host=host, port=0)) as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_ipv6_address_is_bracketed_in_the_url():
    try:
        listener = bind(ServerSettings(host="::1", port=0))
    except AddressError:
        pytest.skip("this machine has no ::1")
    with listener:
        assert url_of(listener).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": ""}, "host '' is unknown"),
        ({"host": "no.such.host.invalid"}, "host 'no.such.host.invalid' is unknown"),
        ({"host": "a" * 100}, "is unknown"),
        ({"host": "192.0.2.1", "api_key": "sesame"}, "cannot listen on 192.0.2.1 port 0"),
        ({"port": 65_536}, "port is 65536, expected 0 to 65535"),
        ({"port": -1}, "port is -1"),
    ],
)
def test_an_address_that_cannot_be_bound_is_explained(settings, said):
    with pytest.raises(AddressError, match=said) as caught:
        bind(ServerSettings(**{"port": 0} | settings))
    assert caught.value.code == "invalid_address"
    assert caught.value.remedy


def test_a_server_that_does_not_start_is_an_error_and_not_a_url(monkeypatch):
    async def fail(self, sockets=None):
        raise SystemExit(3)

    monkeypatch.setattr(_Server, "startup", fail)
    with pytest.raises(ServeError, match="did not start"), serving(EmptyEngine(), ServerSettings(port=0)):
        pass
