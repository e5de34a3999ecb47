"""Content Credentials (C2PA): a signed statement inside a picture's file that a model made it, on whose server.

    file --sign(certificate, key)--> file whose manifest says: created, by a trained algorithm, with fluxone

The certificate is the operator's own, a chain in PEM for signing documents or mail, with its key (P-256) beside it.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

from fluxone import __version__
from fluxone.errors import BadFile, BadRequest, CannotWrite, MissingExtra
from fluxone.serve.settings import Settings

Seal = Callable[[bytes, str], bytes]  # a file and its media type -> the file, signed

ALGORITHM = b"es256"
MADE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MANIFEST = {
    "claim_generator_info": [{"name": "fluxone", "version": __version__}],
    "assertions": [
        {
            "label": "c2pa.actions.v2",
            "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": MADE}]},
        }
    ],
}


def seal_of(settings: Settings) -> Seal | None:
    """What signs the results of a server; None if its settings name no certificate.

    Raises:
        BadRequest: one of certificate and key is missing.
        BadFile: one of them cannot be read, or they do not fit each other.
        MissingExtra: c2pa is not installed.
    """
    if not settings.c2pa_certificate and not settings.c2pa_key:
        return None
    if not settings.c2pa_certificate or not settings.c2pa_key:
        raise BadRequest("c2pa_certificate and c2pa_key belong together", hint="set both, or neither")
    certificate, key = (_read(place) for place in (settings.c2pa_certificate, settings.c2pa_key))
    try:
        import c2pa
    except ImportError:
        raise MissingExtra("c2pa", "signing pictures needs c2pa-python, which is not installed") from None
    info = c2pa.C2paSignerInfo(alg=ALGORITHM, sign_cert=certificate, private_key=key, ta_url=None)
    try:
        signer = c2pa.Signer.from_info(info)
    except c2pa.C2paError as error:
        raise BadFile(f"{settings.c2pa_certificate} and its key cannot sign: {error}") from None
    lock = threading.Lock()

    def sign(data: bytes, kind: str) -> bytes:
        signed = io.BytesIO()
        try:
            with lock, c2pa.Builder(json.dumps(MANIFEST)) as builder:
                builder.sign(signer, kind, io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise CannotWrite(f"the picture cannot be signed: {error}") from None
        return signed.getvalue()

    return sign


def _read(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise BadFile(f"{place} cannot be read: {error.strerror}", hint="give a PEM file") from None
