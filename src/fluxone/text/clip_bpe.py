"""CLIP's byte-level BPE, from `vocab.json` and `merges.txt`.

    "A  Red fox" -> lower case, single spaces -> words by CLIP's pattern -> bytes -> merges -> a</w> red</w> fox</w>

Source: Radford et al. 2021; openai/CLIP, `simple_tokenizer.py` (the pattern, `</w>`, start and end).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from fluxone.errors import BadFile

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def build(
    vocab: Mapping[str, int], merges: Sequence[str], *, start: str | None = None, end: str | None = None
) -> Tokenizer:
    """Return CLIP's tokenizer. `merges` are the lines of the file, a comment first or not.

    Raises:
        BadFile: a special token or a merge is not in the vocabulary.
    """
    start, end = start or START, end or END
    pairs = [
        (left, right) for left, _, right in (line.partition(" ") for line in merges) if right and left != "#version:"
    ]
    absent = [token for token in (start, end) if token not in vocab]
    absent += [token for a, b in pairs for token in (a, b, a + b) if token not in vocab]
    if absent:
        raise BadFile(
            f"the CLIP vocabulary lacks {absent[0]!r} and {len(absent) - 1} more tokens",
            hint="vocab.json and merges.txt must come from the same model",
        )
    model = models.BPE(vocab=dict(vocab), merges=pairs, unk_token=end, end_of_word_suffix=WORD_END)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (start, end)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocab[start]), (end, vocab[end])]
    )
    return tokenizer
