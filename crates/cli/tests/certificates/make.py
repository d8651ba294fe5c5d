#!/usr/bin/env python3
"""Makes the certificates of this folder: an authority and what it signed. Needs PyPI's cryptography==46.0.3.

The key is for tests alone and is no secret.
"""

import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = pathlib.Path(__file__).parent
LOOPBACK = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


def certificate(name, public, signer, issuer, names, years=(2024, 2124)):
    of = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"stackelberg test {name}")])
    builder = (x509.CertificateBuilder().subject_name(of).issuer_name(issuer or of).public_key(public)
               .serial_number(x509.random_serial_number())
               .not_valid_before(datetime.datetime(years[0], 1, 1)).not_valid_after(datetime.datetime(years[1], 1, 1))
               .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(signer, hashes.SHA256())
    (HERE / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made.subject


authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
(HERE / "key.pem").write_bytes(key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
issuer = certificate("authority", authority.public_key(), authority, None, [])
certificate("good", key.public_key(), authority, issuer, LOOPBACK)
certificate("expired", key.public_key(), authority, issuer, LOOPBACK, (2000, 2001))
certificate("elsewhere", key.public_key(), authority, issuer, [x509.DNSName("reward.example.org")])
certificate("self-signed", key.public_key(), key, None, LOOPBACK)
