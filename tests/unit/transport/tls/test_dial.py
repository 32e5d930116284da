"""What a source meets that does not get through to a destination."""

import socket
import ssl
import threading

import anyio
import pytest

from phaul import errors as e
from phaul.transport.tls.source import TlsSource
from phaul.transport.tls.target import Address, KnownHost
from tests.unit.transport.tls.conftest import LIMIT, Hosts, tls12

pytestmark = pytest.mark.anyio


async def test_nobody_listens(hosts: Hosts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = Address("127.0.0.1", listener.getsockname()[1])
    known = KnownHost("host2", where, hosts.theirs.identity().certificate)
    with pytest.raises(e.ConnectionRefused) as caught:
        await TlsSource(known, hosts.ours.identity()).__aenter__()
    assert "phaul serve" in caught.value.remedy


async def test_nobody_answers(hosts: Hosts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = Address("127.0.0.1", listener.getsockname()[1])
        known = KnownHost("host2", where, hosts.theirs.identity().certificate)
        with pytest.raises(e.ConnectTimeout, match=r"within 0\.2 s"):
            await TlsSource(known, hosts.ours.identity(), connect_timeout=0.2).__aenter__()


async def test_a_name_without_an_address(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(anyio, "getaddrinfo", fails)
    known = KnownHost("host2", Address("nowhere", 7433), hosts.theirs.identity().certificate)
    with pytest.raises(e.HostUnknown, match="nowhere"):
        await TlsSource(known, hosts.ours.identity()).__aenter__()


async def test_a_server_that_is_no_phaul(hosts: Hosts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        where = Address("127.0.0.1", listener.getsockname()[1])
        known = KnownHost("host2", where, hosts.theirs.identity().certificate)
        with pytest.raises(e.ConnectFailed, match="TLS failed") as caught:
            await TlsSource(known, hosts.ours.identity()).__aenter__()
        assert "phaul serve" in caught.value.remedy
        thread.join(LIMIT)


async def test_a_server_of_tls_1_2(hosts: Hosts) -> None:
    identity = hosts.theirs.identity()
    context = tls12(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as sock, pytest.raises(ssl.SSLError):
                context.wrap_socket(sock, server_side=True)

        thread = threading.Thread(target=answer)
        thread.start()
        where = Address("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(e.ConnectFailed, match="TLS failed"):
            await TlsSource(
                KnownHost("host2", where, identity.certificate), hosts.ours.identity()
            ).__aenter__()
        thread.join(LIMIT)
