"""The starter's tokenizer: byte-level BPE trained on its own rows, with a chat template."""

from __future__ import annotations

import random

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from recipes.starter.mixture import Mixture
from recipes.starter.rows import Row, words_of

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
MARKS = tuple(f"[S{number}]" for number in range(1, 17))  # of sources; one token each
TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(
    mixture: Mixture, vocabulary: int, seed: int, context: int, rows: int = 60_000
) -> PreTrainedTokenizerFast:
    """Train on that many drawn rows; deterministic under the seed."""
    rng = random.Random(seed)
    corpus = [words_of(mixture.draw(rng)) for _ in range(rows)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(MARKS),
        special_tokens=[PAD, BEGIN, END, *ROLES.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES.values()),
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


class Encoder:
    """Rows to token ids and a mask of what is learned."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.backend = tokenizer.backend_tokenizer
        ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in ROLES.items()}
        self.roles: dict[str, int] = ids
        self.begin, self.end, self.pad = (
            tokenizer.convert_tokens_to_ids(token) for token in (BEGIN, END, PAD)
        )

    def text(self, text: str) -> list[int]:
        """Ids of a plain text."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode(self, row: Row) -> tuple[list[int], list[bool]]:
        """`(ids, learned)`, both of the row's length; learned are answers and raw texts.

        A turn marked `learned: False` is read only.
        """
        ids, learned = [self.begin], [False]
        if row.text:
            told = [*self.text(row.text), self.end]
            return ids + told, learned + [True] * len(told)
        for message in row.messages:
            body = [*self.text(message["content"]), self.end]
            answer = message["role"] == "assistant" and message.get("learned", True)
            ids += [self.roles[message["role"]], *body]
            learned += [False, *([answer] * len(body))]
        return ids, learned
