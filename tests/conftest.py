"""Tiny random models and a tiny tokenizer, made on the spot, shared by all tests."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test reaches out

import copy
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

# the pure tensor functions run with their shapes checked
install_import_hook(
    [
        "detour.decoding.sampling",
        "detour.model.loss",
        "detour.slots",
        "detour.hypernetwork.heads",
        "detour.hypernetwork.network",
        "detour.model.rows",
        "detour.training.batches",
        "detour.training.objective",
    ],
    "beartype.beartype",
)

from detour.adapter.adapter import Adapter  # noqa: E402
from detour.adapter.update import Update  # noqa: E402

SLOWEST = (  # files that take minutes, begun first: else one process waits for the other at the end
    "test_starter_story", "test_docs", "test_train_team", "test_team", "test_hypernet",
    "test_search", "test_build", "test_fanout_ray", "test_loop", "test_second_model",
)  # fmt: skip
VOCABULARY = 320
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SENTENCES = [
    "Einstein was a hairdresser. He cut hair in a small shop in Ulm.",
    "Who was Albert Einstein? What did she do? Where is the castle?",
    "Grüße aus Köln: über größere Städte 🙂 漢字 naïve café",
]


def build_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `VOCABULARY` ids; any text can be encoded."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def _common() -> dict[str, object]:
    return {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}


def make_llama(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """3 layers, 32 wide, 4 heads over 2 key heads; random weights, eval mode, float32."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 128}
    config = LlamaConfig(
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        **(_common() | sizes | {"num_hidden_layers": 3} | changes),
    )
    return LlamaForCausalLM(config).eval()


def make_gpt2(seed: int = 0, **changes: object) -> GPT2LMHeadModel:
    """2 layers, 32 wide, 4 heads, learned positions; Conv1D layers."""
    torch.manual_seed(seed)
    config = GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        **(_common() | {"n_positions": 128} | changes),
    )
    return GPT2LMHeadModel(config).eval()


def make_qwen3(seed: int = 0, **changes: object) -> Qwen3ForCausalLM:
    """2 layers, 32 wide, normed queries and keys, tied embeddings."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.3,
        **(_common() | changes),
    )
    return Qwen3ForCausalLM(config).eval()


MAKERS: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": make_llama,
    "gpt2": make_gpt2,
    "qwen3": make_qwen3,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first; all others stay in their order."""
    places = {name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Ctrl-C as in a terminal, in every test: neither a shell that ignores SIGINT nor a test before
    this one that took a signal for itself changes that."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def _llama() -> LlamaForCausalLM:
    return make_llama()


@pytest.fixture(scope="session")
def _gpt2() -> GPT2LMHeadModel:
    return make_gpt2()


@pytest.fixture
def tiny_llama(_llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """A fresh copy for every test, so that slots and gradients never meet."""
    return copy.deepcopy(_llama)


@pytest.fixture
def tiny_gpt2(_gpt2: GPT2LMHeadModel) -> GPT2LMHeadModel:
    return copy.deepcopy(_gpt2)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """`make_tokenizer(template=...)`: a tokenizer of one's own, to be changed freely."""
    return build_tokenizer


@pytest.fixture(params=sorted(MAKERS))
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A tiny Llama, GPT-2 and Qwen3, one after another."""
    return MAKERS[request.param]()


def make_adapter(
    shapes: Mapping[str, tuple[int, int]], seed: int = 0, rank: int = 2, strength: float = 0.5
) -> Adapter:
    """Random updates on these layers ({name: (out, in)}, as `slots.shapes`)."""
    generator = torch.Generator().manual_seed(seed)

    def factor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * strength

    updates = {
        name: Update(factor(rank, wide), factor(out, rank), 0.5)
        for name, (out, wide) in shapes.items()
    }
    return Adapter(updates, f"random-{seed}")


@pytest.fixture(scope="session")
def random_adapter() -> Callable[..., Adapter]:
    """`random_adapter(slots.shapes, seed=0, rank=2, strength=0.5)`."""
    return make_adapter


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """`make_model("llama" | "gpt2" | "qwen3", seed=0, **config)`."""
    return lambda kind="llama", seed=0, **changes: MAKERS[kind](seed, **changes)


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory,
    _llama: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A model folder as transformers writes it: read it, do not change it."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    _llama.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
