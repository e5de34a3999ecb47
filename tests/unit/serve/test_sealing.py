"""Content Credentials: the file says that a model made it, signed, and keeps its record."""

from __future__ import annotations

import datetime
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from fluxone import provenance
from fluxone.errors import BadFile, BadRequest
from fluxone.provenance import Record
from fluxone.request import Request
from fluxone.serve.sealing import MADE, seal_of
from fluxone.serve.settings import Settings
from fluxone.serve.store import TYPES, Store
from fluxone.variants import MINI

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install 'fluxone[c2pa]'")
JOB = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of our own making, its chain in one file, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder = tmp_path_factory.mktemp("pem")
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "leaf")}
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)

    def named(name: str) -> x509.Name:
        attributes = ((NameOID.COMMON_NAME, name), (NameOID.ORGANIZATION_NAME, "a test"))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])

    def certificate(name: str) -> x509.Certificate:
        root = name == "root"
        usage = x509.KeyUsage(True, False, False, False, False, root, root, False, False)
        made = x509.CertificateBuilder(named("root"), named(name), keys[name].public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - day).not_valid_after(now + 30 * day)
        made = made.add_extension(x509.BasicConstraints(root, None), True).add_extension(usage, True)
        if not root:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["root"].public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(keys[name].public_key())
        return made.add_extension(own, False).add_extension(issuer, False).sign(keys["root"], hashes.SHA256())

    pem = serialization.Encoding.PEM
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(certificate(name).public_bytes(pem) for name in ("leaf", "root")))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(keys["leaf"].private_bytes(pem, *plain))
    return chain, key


@pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])
def test_results_are_signed_and_keep_their_record(pems: tuple[Path, Path], tmp_path: Path, format_: str) -> None:
    settings = Settings(c2pa_certificate=str(pems[0]), c2pa_key=str(pems[1]))
    store = Store(tmp_path, seal_of(settings))
    request = Request(prompt="a fox", seed=7).resolve(MINI)
    store.keep(JOB, Image.new("RGB", (64, 48), "red"), Record(request=request, model="mini"), format_, 95)
    path = tmp_path / store.name(JOB, format_)
    with c2pa.Reader(TYPES[path.suffix], io.BytesIO(path.read_bytes())) as reader:
        told = json.loads(reader.json())
    assert told["validation_state"] == "Valid"
    assert {status["code"] for status in told.get("validation_status", [])} <= {"signingCredential.untrusted"}
    (action,) = told["manifests"][told["active_manifest"]]["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", MADE)
    assert provenance.read(path).request.seed == 7


def test_what_cannot_sign(pems: tuple[Path, Path]) -> None:
    assert seal_of(Settings()) is None
    with pytest.raises(BadRequest, match="belong together"):
        seal_of(Settings(c2pa_key=str(pems[1])))
    with pytest.raises(BadFile, match="cannot be read"):
        seal_of(Settings(c2pa_certificate="none.pem", c2pa_key=str(pems[1])))
    with pytest.raises(BadFile, match="cannot sign"):
        seal_of(Settings(c2pa_certificate=str(pems[0]), c2pa_key=str(pems[0])))
