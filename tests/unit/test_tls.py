"""`hydrasms certs`, and what makes an identity of the files that the settings name."""

import datetime
import ipaddress
import shutil
import stat

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hydrasms_app.certificates import make_trial_certificates
from hydrasms_app.channel import way_to_core
from hydrasms_app.problems import Problem
from hydrasms_app.settings import Settings, load_settings
from hydrasms_app.tls import load_identity
from tests.support.fake_core import failure_of, run, text_of


@pytest.fixture
def made(tmp_path):
    return make_trial_certificates(tmp_path / "certs", ("core.example.com", "10.0.0.5"), 30)


def settings_of(made, **changes):
    files = {"tls_cert": made.core, "tls_key": made.core_key, "tls_ca": made.authority}
    return Settings(**{**files, **changes})


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(path):
    return certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_cores_certificate_carries_every_name_that_it_is_reached_by(made):
    assert names(made.core).get_values_for_type(x509.DNSName) == [
        "localhost",
        "hydrasms-core",
        "core.example.com",
    ]
    assert names(made.core).get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
        ipaddress.ip_address("10.0.0.5"),
    ]


def test_certificates_come_from_the_authority_and_end_when_asked(made):
    authority = certificate(made.authority)
    for path in (made.core, made.client):
        issued = certificate(path)
        issued.verify_directly_issued_by(authority)
        left = issued.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(days=29) < left <= datetime.timedelta(days=30)
        assert issued.not_valid_before_utc < datetime.datetime.now(datetime.UTC)


def test_keys_are_for_their_owner_alone_and_all_differ(made):
    keys = [made.core_key, made.client_key, made.authority.with_name("ca.key")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    loaded = [serialization.load_pem_private_key(path.read_bytes(), None) for path in keys]
    assert all(isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size == 256 for key in loaded)
    assert len({path.read_bytes() for path in keys}) == 3


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "core.crt", "core.key", "client.crt", "client.key"])
def test_nothing_is_written_over(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(Problem, match="is there already"):
        make_trial_certificates(tmp_path, (), 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_the_command_says_which_variables_to_set(tmp_path):
    shown = text_of(run("certs", str(tmp_path / "certs"), "--host", "core.example.com", "--days", "2"))
    lines = [line.strip() for line in shown.splitlines()]
    for name in ("core", "client"):
        assert f"export HYDRASMS_TLS_CERT={tmp_path}/certs/{name}.crt" in lines
        assert f"export HYDRASMS_TLS_KEY={tmp_path}/certs/{name}.key" in lines
    assert lines.count(f"export HYDRASMS_TLS_CA={tmp_path}/certs/ca.crt") == 2
    assert "core.example.com" in names(tmp_path / "certs" / "core.crt").get_values_for_type(x509.DNSName)
    assert "is there already" in failure_of(run("certs", str(tmp_path / "certs")))


def test_a_host_that_is_none_is_refused_before_anything_is_written(tmp_path):
    assert "neither an address nor a name" in failure_of(
        run("certs", str(tmp_path / "c"), "--host", "bücher.example")
    )
    assert not (tmp_path / "c").exists()


def test_files_that_fit_are_an_identity(made):
    identity = load_identity(settings_of(made))
    assert identity is not None
    assert identity.certificate == made.core.read_bytes()
    assert "PRIVATE" not in repr(identity)
    assert load_identity(Settings()) is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: {"tls_key": m.client_key}, "are not a certificate and its key"),
        (lambda m: {"tls_cert": m.core_key}, "are not a certificate and its key"),
        (lambda m: {"tls_ca": m.core_key}, "holds no authority's certificate"),
        (lambda m: {"tls_ca": m.core.with_name("none.crt")}, "No such file"),
    ],
)
def test_files_that_do_not_fit_are_a_problem_in_one_line(made, change, complaint):
    with pytest.raises(Problem, match=complaint) as caught:
        load_identity(settings_of(made, **change(made)))
    assert "\n" not in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(("begins", "ends"), [(-20, -10), (10, 20)])
def test_a_certificate_that_is_past_its_end_or_not_begun_is_refused(made, begins, ends):
    now, before = datetime.datetime.now(datetime.UTC), certificate(made.core)
    key = serialization.load_pem_private_key(made.core_key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    issued = (
        x509.CertificateBuilder()
        .subject_name(before.subject)
        .issuer_name(before.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .sign(key, hashes.SHA256())
    )
    made.core.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    with pytest.raises(Problem, match=r"core\.crt is valid from .* to .*, not today"):
        load_identity(settings_of(made))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(made, tmp_path):
    key = serialization.load_pem_private_key(made.core_key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    locked.chmod(0o600)
    with pytest.raises(Problem, match="without a password"):
        load_identity(settings_of(made, tls_key=locked))


def test_a_key_that_everybody_may_read_is_refused_and_one_for_a_group_is_not(made):
    made.core_key.chmod(0o644)
    with pytest.raises(Problem, match="everybody may read the key"):
        load_identity(settings_of(made))
    made.core_key.chmod(0o640)
    assert load_identity(settings_of(made)) is not None


def test_the_three_files_go_together(made):
    with pytest.raises(Problem, match="go together: set all three"):
        load_settings(tls_cert=made.core, tls_key=made.core_key)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "core.example.com"])  # noqa: S104
def test_a_core_listens_on_the_network_with_tls_alone(made, host):
    with pytest.raises(Problem, match="loopback addresses alone unless it speaks TLS"):
        load_settings(grpc_host=host)
    assert settings_of(made, grpc_host=host).grpc_host == host
    # On a Unix socket it does not listen there at all.
    assert load_settings(grpc_host=host, grpc_socket="core.sock").grpc_host == host


def test_a_core_elsewhere_is_called_with_tls_alone(made):
    with pytest.raises(Problem, match="in the clear"):
        way_to_core(load_settings(HYDRASMS_CORE="core.example.com:1"))
    way = way_to_core(settings_of(made, HYDRASMS_CORE="core.example.com:1"))
    assert way.has_identity


def named(way):
    return dict(way.options).get("grpc.ssl_target_name_override")


def test_the_name_in_a_cores_certificate_is_its_host_unless_there_are_several(made):
    assert named(way_to_core(settings_of(made, HYDRASMS_CORE="core.example.com:1"))) is None
    assert named(way_to_core(settings_of(made, HYDRASMS_CORE="10.0.0.1:1,10.0.0.2:1"))) == "hydrasms-core"
    assert named(way_to_core(settings_of(made, HYDRASMS_CORE="10.0.0.1:1", tls_name="core-7"))) == "core-7"


def test_a_unix_socket_needs_no_certificate(made):
    way = way_to_core(settings_of(made, HYDRASMS_CORE="unix:/run/core.sock"))
    assert not way.has_identity


def test_a_certificate_that_was_renewed_in_place_is_read_again(made, tmp_path):
    before = load_identity(settings_of(made))
    again = make_trial_certificates(tmp_path / "again", (), 1)
    for old, new in zip(made, again, strict=True):
        shutil.copyfile(new, old)
    after = load_identity(settings_of(made))
    assert before is not None
    assert after is not None
    assert before.certificate != after.certificate
