"""Who may use a served log: addresses, tokens and certificates."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.errors import AuthenticationError, OptionError, RemoteLogError
from millstream.log import Log
from millstream.log.remote.address import Address
from millstream.log.remote.server import Certificate, LogServer
from tests.log.log_kit import SCHEMA, put, read
from tests.log.remote.remote_kit import memory_disk, remote_log, served


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "host", "port", "is_encrypted"),
        [
            ("grpc://here:1", "here", 1, False),
            ("grpc+tls://here", "here", 8815, True),
            ("grpc://[::1]:7/", "::1", 7, False),
        ],
    )
    def test_they_are_taken_apart(
        self, text: str, host: str, port: int, is_encrypted: bool
    ) -> None:
        address = Address.parse(text)
        assert (address.host, address.port, address.is_encrypted) == (host, port, is_encrypted)
        assert Address.parse(str(address)) == address

    @pytest.mark.parametrize(
        "text",
        [
            "http://here:1",
            "grpc://",
            "grpc://here:port",
            "grpc://here:99999",
            "grpc://here/data",
            "grpc://me@here",
            "grpc://here?x=1",
            "grpc://[::1",
            "GRPC+TCP://here",
        ],
    )
    def test_a_bad_one_is_refused(self, text: str) -> None:
        with pytest.raises(OptionError, match="is no address of a log"):
            Log(text)

    def test_an_address_takes_no_storage(self) -> None:
        with pytest.raises(OptionError, match="no storage of its own"):
            Log("grpc://here", storage=memory_disk().storage("a"))

    def test_a_log_at_an_address_has_no_files(self) -> None:
        log = Log("grpc://here:1")
        with pytest.raises(OptionError, match=r"grpc://here:1 is on another machine.*read_file"):
            log.storage.read_file("x")

    def test_a_time_out_is_positive(self) -> None:
        with pytest.raises(OptionError, match="seconds above 0"):
            Log("grpc://here", timeout_s=0)

    def test_the_default_log_may_be_at_an_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MILLSTREAM_LOG", "grpc://here:1")
        assert Log.default().path == "grpc://here:1"


class TestTokens:
    @pytest.fixture
    def server(self) -> Iterator[LogServer]:
        with served(memory_disk(), token="secret") as server:
            yield server

    def test_who_has_it_is_served(self, server: LogServer) -> None:
        with remote_log(server.address, token="secret") as log:
            log.create_topic("a", SCHEMA)
            put(log, "a", [1])
            assert read(log.topic("a")) == [1]

    def test_the_environment_may_hold_it(
        self, server: LogServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MILLSTREAM_TOKEN", "secret")
        with remote_log(server.address) as log:
            assert log.topic_names() == []

    @pytest.mark.parametrize("token", [None, "wrong", "secret!", "Secret"])
    def test_others_are_refused_at_once(self, server: LogServer, token: str | None) -> None:
        with (
            remote_log(server.address, token=token) as log,
            pytest.raises(AuthenticationError, match=r"refuses this client.*MILLSTREAM_TOKEN"),
        ):
            log.topic_names()

    @pytest.mark.parametrize("token", ["", "two words", "gehäuse", "line\n", "x" * 1_025])
    def test_what_cannot_stand_in_a_header_is_no_token(self, token: str) -> None:
        with pytest.raises(OptionError, match="a token is 1 to 1,024 letters") as told:
            Log("grpc://here", token=token)
        assert not token or token not in str(told.value)
        with pytest.raises(OptionError, match="a token is"), served(memory_disk(), token=token):
            pass

    def test_a_token_is_not_shown(self) -> None:
        from millstream.log.remote.connection import ConnectionOptions

        assert "secret" not in repr(ConnectionOptions(token="secret"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        f"-keyout {key} -out {certificate} -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return Certificate(certificate.read_bytes(), key.read_bytes())


class TestEncryption:
    @pytest.fixture
    def server(self, certificate: Certificate) -> Iterator[LogServer]:
        with served(memory_disk(), host="localhost", certificate=certificate, token="t") as server:
            yield server

    def test_who_trusts_the_certificate_is_served(
        self, server: LogServer, certificate: Certificate
    ) -> None:
        assert server.address.startswith("grpc+tls://localhost:")
        with remote_log(server.address, certificates=certificate.certificate, token="t") as log:
            log.create_topic("a", SCHEMA)
            put(log, "a", [1])
            assert read(log.topic("a")) == [1]

    def test_the_environment_may_name_the_certificate(
        self,
        server: LogServer,
        certificate: Certificate,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = tmp_path / "roots.pem"
        monkeypatch.setenv("MILLSTREAM_TLS_ROOTS", str(file))
        with pytest.raises(OptionError, match="cannot read the certificates"):
            Log(server.address)
        file.write_bytes(certificate.certificate)
        with remote_log(server.address, token="t") as log:
            assert log.topic_names() == []

    def test_a_stranger_is_not_trusted(self, server: LogServer) -> None:
        with (
            remote_log(server.address, token="t") as log,
            pytest.raises(AuthenticationError, match="no trust in the server"),
        ):
            log.topic_names()

    def test_a_server_without_encryption_is_not_talked_to(self, certificate: Certificate) -> None:
        with (
            served(memory_disk()) as server,
            remote_log(
                server.address.replace("grpc:", "grpc+tls:"),
                certificates=certificate.certificate,
                timeout_s=0.5,
            ) as log,
            pytest.raises((AuthenticationError, RemoteLogError)),
        ):
            log.topic_names()
