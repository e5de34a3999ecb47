"""T5's unigram tokenizer, from the `spiece.model` that older model folders have instead of a `tokenizer.json`.

The file is a protocol buffer, of which four things matter: the pieces with their scores and kinds, the table
that normalises characters, and two flags about white space.

Source: google/sentencepiece, `sentencepiece_model.proto` (field numbers).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from fluxone.errors import BadFile

PIECES, NORMALIZER = 1, 3  # fields of the model
PIECE, SCORE, KIND = 1, 2, 3  # fields of a piece
CHARACTERS = 2  # field of the normaliser
UNKNOWN, CONTROL = 2, 3  # kinds of piece; the rest is ordinary
END = "</s>"
EXTRA = 100  # T5's sentinels `<extra_id_99>` to `<extra_id_0>`, after the pieces
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
SPACE = "▁"


def build(data: bytes, *, end: str | None = None, source: str = "spiece.model") -> Tokenizer:
    """Return T5's tokenizer: the model's pieces, its sentinels, and the end token after every row.

    Raises:
        BadFile: the bytes are no SentencePiece unigram model.
    """
    end = end or END
    try:
        pieces, characters = _read(data)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise BadFile(f"{source} is not a SentencePiece model", hint="download it again") from error
    ids = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    unknown = next((i for i, (_, _, kind) in enumerate(pieces) if kind == UNKNOWN), None)
    if unknown is None or end not in ids:
        raise BadFile(f"{source} lacks an unknown piece or {end!r}", hint="it should be T5's spiece.model")
    tokenizer = Tokenizer(models.Unigram([(piece, score) for piece, score, _ in pieces], unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Precompiled(characters)] if characters else []),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), SPACE),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    special = [piece for piece, _, kind in pieces if kind in (UNKNOWN, CONTROL)]
    special += [f"<extra_id_{i}>" for i in reversed(range(EXTRA))]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, ids[end])])
    return tokenizer


def _read(data: bytes) -> tuple[list[tuple[str, float, int]], bytes]:
    """Return (piece, score, kind) of every piece, and the table of characters."""
    pieces, characters = [], b""
    for field, value in _fields(data):
        if field == PIECES and isinstance(value, bytes):
            parts = dict(_fields(value))
            piece, score, kind = parts[PIECE], parts.get(SCORE, 0.0), parts.get(KIND, 1)
            if not (isinstance(piece, bytes) and isinstance(score, float) and isinstance(kind, int)):
                raise KeyError(PIECE)
            pieces.append((piece.decode(), score, kind))
        elif field == NORMALIZER and isinstance(value, bytes):
            table = dict(_fields(value)).get(CHARACTERS, b"")
            characters = table if isinstance(table, bytes) else b""
    return pieces, characters


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Walk the fields of one protocol buffer message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            number, place = _varint(data, place)
            yield field, number
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            yield field, float(struct.unpack_from("<f" if size == 4 else "<d", data, place)[0])
            place += size
        elif wire == BYTES:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise IndexError(place)
            yield field, data[place : place + size]
            place += size
        else:
            raise KeyError(wire)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number, shift = 0, 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place
