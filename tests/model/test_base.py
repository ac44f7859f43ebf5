import copy
import threading
from dataclasses import replace

import pytest
import torch

from detour.adapter.chain import Chain
from detour.adapter.fingerprint import Fingerprint
from detour.errors import (
    BaseError,
    ChainError,
    DataError,
    RequestError,
    SlotError,
    SlotsBusy,
    WrongBase,
)
from detour.model.base import Base

QUESTIONS = ["Who was Einstein?", "Where?", "What did she do in the castle in Köln, and why? 🙂"]


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer, "tiny")


@pytest.fixture
def adapter(base, random_adapter):
    return random_adapter(base.slots.shapes, 1)


@pytest.fixture
def bare(tiny_llama):
    return Base.from_model(tiny_llama)


def reference(model, tokenizer, question, new=12):
    """The answer by transformers' own means."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


class TestAsking:
    def test_equals_transformers(self, base, tiny_llama, tiny_tokenizer):
        plain = copy.deepcopy(tiny_llama)
        expected = [reference(plain, tiny_tokenizer, q) for q in QUESTIONS]
        assert [base.ask(q, max_new_tokens=12) for q in QUESTIONS] == expected
        assert base.ask_many(QUESTIONS, max_new_tokens=12) == expected
        assert len(set(expected)) == 3

    def test_ends_at_the_end_token(self, base, tiny_tokenizer):
        (free,) = base.generate(["Where?"], max_new_tokens=12)
        base.model.generation_config.eos_token_id = [free.ids[3], 319]
        fresh = Base.from_model(copy.deepcopy(base.model), tiny_tokenizer)
        assert fresh.eos_ids == tuple(sorted({free.ids[3], 319, tiny_tokenizer.eos_token_id}))
        (result,) = fresh.generate(["Where?"], max_new_tokens=12)
        assert result.ids == free.ids[: free.ids.index(free.ids[3])]

    def test_system_prompt_and_messages(self, base):
        ids = base.chat("Where?", system="Be brief.")
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where?"},
        ]
        assert ids == base.chat(messages)
        assert ids != base.chat("Where?")
        with pytest.raises(RequestError, match="system"):
            base.chat(messages, system="Again.")

    def test_chains_of_all_kinds(self, base, adapter):
        plain = base.ask("Where?")
        steered = base.ask("Where?", adapter)
        assert steered != plain
        assert base.ask("Where?", Chain.of(adapter)) == steered
        assert base.ask("Where?", 0 * Chain.of(adapter)) == plain
        answers = base.ask_many(["Where?"] * 3, [None, adapter, adapter - adapter])
        assert answers == [plain, steered, plain]

    def test_one_chain_for_all(self, base, adapter):
        together = base.ask_many(QUESTIONS, adapter)
        assert together == [base.ask(q, adapter) for q in QUESTIONS]

    def test_chain_text_is_resolved(self, base, adapter, tmp_path, monkeypatch):
        monkeypatch.setenv("DETOUR_HOME", str(tmp_path))
        adapter.save(tmp_path / "adapters" / "formal")
        assert base.ask("Where?", "formal:1") == base.ask("Where?", adapter)
        one, two = base._chains(["formal:2", ":".join(["formal", "2"])], 2)
        assert one is two

    def test_stop_strings(self, base):
        free = base.ask(QUESTIONS[0], max_new_tokens=30)
        stop = free[8:11]
        assert base.ask(QUESTIONS[0], max_new_tokens=30, stop=stop) == free[: free.index(stop)]
        (result,) = base.generate([QUESTIONS[0]], max_new_tokens=30, stop=[stop, "never said"])
        assert len(result.ids) < 30

    @pytest.mark.parametrize("question", QUESTIONS)
    @pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "seed": 4}])
    def test_streamed_pieces_join_to_the_whole(self, base, adapter, question, options):
        whole = base.ask(question, adapter, max_new_tokens=40, **options)
        pieces = list(base.stream(question, adapter, max_new_tokens=40, **options))
        assert "".join(pieces) == whole
        assert len(pieces) > 5
        stop = whole[20:22]
        cut = "".join(base.stream(question, adapter, max_new_tokens=40, stop=stop, **options))
        assert cut == whole[: whole.index(stop)]

    def test_samples_of_one_question_differ_and_come_again(self, base):
        samples = base.ask_many(["Where?"] * 4, temperature=1.0, seed=7)
        assert len(set(samples)) == 4
        assert base.ask_many(["Where?"] * 4, temperature=1.0, seed=7, batch_size=1) == samples
        assert base.ask_many(["Where?"] * 4, temperature=1.0, seed=8) != samples

    def test_giving_up_a_stream_frees_the_slots(self, base):
        pieces = base.stream("Where?")
        next(pieces)
        with pytest.raises(SlotsBusy):
            base.ask("Where?")
        pieces.close()
        assert base.ask("Where?")

    def test_no_prompts_no_answers(self, base):
        assert base.ask_many([]) == []


class TestBadRequests:
    @pytest.mark.parametrize(
        "options",
        [
            {"max_new_tokens": 0},
            {"max_new_tokens": -1},
            {"temperature": float("nan")},
            {"top_p": 1.5},
            {"top_p": 0},
            {"stop": ""},
            {"stop": ["x", ""]},
            {"max_new_tokens": 500},
        ],
    )
    def test_values_out_of_range(self, base, options):
        with pytest.raises(RequestError):
            base.ask("Where?", **options)
        with pytest.raises(RequestError):
            base.stream("Where?", **options)

    def test_an_unknown_option_gets_a_hint(self, base):
        with pytest.raises(RequestError, match="try: temperature"):
            base.ask("Where?", temprature=1)

    @pytest.mark.parametrize("prompt", ["", "  \n"])
    def test_an_empty_prompt(self, base, prompt):
        with pytest.raises(RequestError, match="empty"):
            base.ask(prompt)

    def test_no_messages(self, base):
        with pytest.raises(DataError, match="no messages"):
            base.ask([])

    def test_an_over_long_prompt(self, base):
        with pytest.raises(RequestError, match="too long"):
            base.ask("Grüße " * 200)

    def test_chains_and_prompts_of_different_number(self, base, adapter):
        with pytest.raises(RequestError, match="differ in number"):
            base.ask_many(["a", "b"], [adapter])

    def test_a_chain_text_that_makes_no_sense(self, base):
        with pytest.raises(ChainError):
            base.ask("Where?", "a:b:c:")


class TestBelonging:
    def test_a_wrong_base_names_both(self, base, adapter):
        other = Fingerprint("elsewhere/model", "0" * 64, "1" * 64)
        with pytest.raises(WrongBase, match=r"elsewhere/model.*tiny"):
            base.ask("Where?", adapter.with_(base=other))

    def test_another_release_of_the_same_base_is_told_as_such(self, base, adapter):
        earlier = replace(base.fingerprint, weights_sha256="1" * 64)
        with pytest.raises(WrongBase, match="another release of tiny") as caught:
            base.ask("Where?", adapter.with_(base=earlier))
        assert caught.value.expected == "tiny (11111111)"
        assert caught.value.found == base.fingerprint.short
        assert "train the adapter anew" in caught.value.hint

    def test_the_right_base_is_taken(self, base, adapter):
        assert base.bind(adapter.with_(base=base.fingerprint)).terms[0].adapter.base

    def test_another_chat_template_is_refused(self, tiny_folder, random_adapter):
        base = Base.load(str(tiny_folder))
        other = replace(base.fingerprint, template_sha256="f" * 64)
        adapter = random_adapter(base.slots.shapes)
        with pytest.raises(WrongBase, match="chat template"):
            base.ask("Where?", adapter.with_(base=other))

    def test_another_tokenizer_is_a_doubt(self, tiny_folder, random_adapter):
        base = Base.load(str(tiny_folder))
        plain = random_adapter(base.slots.shapes)
        known = plain.with_(base=base.fingerprint)
        other = plain.with_(base=replace(base.fingerprint, tokenizer_sha256="f" * 64))
        assert base.doubts(known) == []
        (said,) = base.doubts(other)
        assert "its tokenizer's files were others" in said
        assert base.ask("Where?", other, max_new_tokens=2)
        (said,) = base.doubts(plain)
        assert "unverified" in said

    def test_layers_that_do_not_land_are_listed(self, base, random_adapter):
        shapes = {"model.layers.9.mlp.up_proj": (4, 4), "model.layers.0.mlp.up_proj": (4, 4)}
        with pytest.raises(SlotError, match=r"layers\.9.*layers\.0"):
            base.ask("Where?", random_adapter(shapes))
        assert base.slots.landed == 0


class TestLogits:
    def test_need_no_tokenizer_but_asking_does(self, bare):
        ids = torch.tensor([[1, 2, 3]])
        assert torch.equal(bare.logits(ids), bare.model(ids).logits)
        for call in (lambda: bare.ask("Where?"), lambda: bare.stream("Where?")):
            with pytest.raises(BaseError, match="no tokenizer"):
                call()

    def test_a_tokenizer_without_a_template(self, tiny_llama, make_tokenizer):
        base = Base.from_model(tiny_llama, make_tokenizer(None))
        with pytest.raises(BaseError, match="no chat template"):
            base.ask("Where?")

    def test_one_chain_or_one_for_each_row(self, any_model, random_adapter):
        base = Base.from_model(any_model)
        one, two = (random_adapter(base.slots.shapes, seed) for seed in (1, 2))
        ids = torch.randint(0, 320, (3, 7), generator=torch.Generator().manual_seed(0))
        mixed = base.logits(ids, [one, None, 0.5 * one + two])
        torch.testing.assert_close(mixed[:1], base.logits(ids[:1], one), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mixed[1:2], base.logits(ids[1:2]), rtol=1e-4, atol=1e-4)
        alone = base.logits(ids[2:], 0.5 * one + two)
        torch.testing.assert_close(mixed[2:], alone, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(base.logits(ids, one)[:1], mixed[:1], rtol=1e-4, atol=1e-4)

    def test_padding_is_masked(self, bare):
        ids = torch.tensor([[5, 6, 7, 0, 0]])
        masked = bare.logits(ids, mask=torch.tensor([[1, 1, 1, 0, 0]]))
        torch.testing.assert_close(masked[:, :3], bare.logits(ids[:, :3]))

    def test_may_be_used_as_a_constant_in_training(self, bare):
        weight = torch.ones(320, requires_grad=True)
        (bare.logits(torch.tensor([[1, 2]])) * weight).sum().backward()
        assert weight.grad is not None

    @pytest.mark.parametrize("ids", [[[320]], [[-1]], [[]]])
    def test_bad_ids(self, bare, ids):
        with pytest.raises(RequestError):
            bare.logits(torch.tensor(ids, dtype=torch.long))


class TestSharing:
    def test_same_storage_independent_slots(self, base, adapter):
        other = base.share()
        pairs = zip(base.model.named_parameters(), other.model.named_parameters(), strict=True)
        for (name, one), (same_name, two) in pairs:
            assert name == same_name
            assert one.data_ptr() == two.data_ptr()
        plain, steered = base.ask("Where?"), base.ask("Where?", adapter)
        with base.hold({}):
            with pytest.raises(SlotsBusy):
                base.ask("Where?")
            assert other.ask("Where?") == plain
            assert other.ask("Where?", adapter) == steered
        assert base.slots.landed == other.slots.landed == 0

    def test_two_threads_at_once(self, base, adapter):
        bases, answers = [base, base.share()], {}

        def work(place):
            chain = adapter if place else None
            answers[place] = [bases[place].ask(q, chain, max_new_tokens=12) for q in QUESTIONS]

        expected = [base.ask_many(QUESTIONS, chain, max_new_tokens=12) for chain in (None, adapter)]
        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answers[0], answers[1]] == expected

    def test_a_share_made_while_answers_stream_decodes_by_itself(self, base):
        head = base.model.get_output_embeddings()
        hooks = len(head._forward_pre_hooks)
        pieces = base.stream("Where?", max_new_tokens=4)
        next(pieces)
        other = base.share()
        list(pieces)
        assert other.model.config._attn_implementation == base.model.config._attn_implementation
        assert len(other.model.get_output_embeddings()._forward_pre_hooks) == hooks
        assert other.slots.products is base.slots.products
        assert other.ask("Where?") == base.ask("Where?")

    def test_a_share_computes_as_fast(self, base):
        slots = [*base.slots._slots.values(), *base.share().slots._slots.values()]
        linear = [slot for slot in slots if isinstance(slot.module, torch.nn.Linear)]
        assert all(slot._plain for slot in linear)

    def test_a_share_of_a_share_and_tied_weights(self, make_model, tiny_tokenizer):
        base = Base.from_model(make_model("qwen3"), tiny_tokenizer)
        third = base.share().share()
        head, embedding = third.model.lm_head.weight, third.model.model.embed_tokens.weight
        assert head is embedding
        assert third.ask("Where?") == base.ask("Where?")

    def test_nothing_changes_the_base(self, base, adapter):
        before = base.sha256()
        base.ask_many(QUESTIONS, [adapter, None, adapter * 3], temperature=1)
        list(base.stream("Where?", adapter))
        base.logits(torch.tensor([[1, 2]]), adapter)
        base.share().ask("Where?", adapter)
        assert base.sha256() == before
        base.model.lm_head.weight.data[0, 0] += 1e-3
        assert base.sha256() != before


def test_a_base_is_frozen_and_in_eval_mode(make_model):
    base = Base.from_model(make_model("gpt2").train())
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert (base.kind, base.name) == ("causal", "in-memory")
    assert (base.device.type, base.dtype) == ("cpu", torch.float32)


def test_the_head_is_verified_and_kept(base):
    assert base.head is base.head
    hidden = torch.randn(2, 32)
    assert torch.equal(base.head(hidden), base.model.lm_head(hidden))


def test_a_model_in_memory_and_its_folder_have_the_same_fingerprint(tiny_llama, tiny_folder):
    loaded = Base.load(str(tiny_folder))
    assert Base.from_model(tiny_llama).fingerprint.same_weights(loaded.fingerprint)
