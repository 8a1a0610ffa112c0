# mypy: allow-untyped-calls
"""X.509 for one cluster: a CA, certificates that it signs, and requests for them. PEM text in and out."""

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509

CA_DAYS = 3650
CERTIFICATE_DAYS = 365
_CLOCK_SKEW = datetime.timedelta(hours=1)


def new_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def new_ca(key: str, days: int = CA_DAYS) -> str:
    """The self-signed certificate of a CA with this private key."""
    private = _private(key)
    name = _name("jupyter-xinfer cluster CA")
    builder = _builder(name, name, private.public_key(), private.public_key(), days)
    return _signed(builder, private, ca=True)


def new_serial() -> int:
    """A number for a certificate, by which it can be revoked."""
    from cryptography import x509

    return x509.random_serial_number()


def new_certificate(
    ca: str, ca_key: str, public_key: str, name: str, days: int = CERTIFICATE_DAYS, serial: int | None = None
) -> str:
    """A certificate for both ends of a connection, signed by the CA, for the holder of `public_key`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509.oid import ExtendedKeyUsageOID

    private = _private(ca_key)
    issuer = x509.load_pem_x509_certificate(ca.encode()).subject
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = (
        _builder(_name(name), issuer, load_pem_public_key(public_key.encode()), private.public_key(), days, serial)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
    )
    return _signed(builder, private, ca=False)


def new_revocation_list(ca: str, ca_key: str, serials: Sequence[int], days: int = CA_DAYS) -> str:
    """The CA's list of the certificates that do not count any more, by their serial numbers."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_pem_x509_certificate(ca.encode()).subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(days=days))
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(_private(ca_key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def public_key_of(key: str) -> str:
    """The public half of a private key."""
    return _public_pem(_private(key).public_key())


def new_request(key: str) -> str:
    """A certificate request that proves that its sender holds the private key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    request = x509.CertificateSigningRequestBuilder().subject_name(_name("node")).sign(_private(key), hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def requested_key(request: str) -> str:
    """The public key of a certificate request from outside. Raises ValueError for anything else than a good one.

    Nothing but the key is taken from it: what the certificate says is decided here.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    parsed = x509.load_pem_x509_csr(request.encode())
    key = parsed.public_key()
    if not parsed.is_signature_valid:
        raise ValueError("the signature of the certificate request is not its key's")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key of the certificate request is not of the kind P-256")
    return _public_pem(key)


def fingerprint(certificate: str) -> str:
    """SHA-256 of the certificate, in hex."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    parsed = x509.load_pem_x509_certificate(certificate.encode())
    return hashlib.sha256(parsed.public_bytes(Encoding.DER)).hexdigest()


def _private(key: str) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(key.encode(), None)


def _public_pem(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def _name(common: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: "x509.Name", issuer: "x509.Name", public: Any, ca_public: Any, days: int, serial: int | None = None
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(new_serial() if serial is None else serial)
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public), critical=False)
    )


def _signed(builder: "x509.CertificateBuilder", key: Any, *, ca: bool) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()
