import copy

import pytest
import torch
from transformers import Qwen3NextConfig

from detour.adapter.chain import Chain
from detour.decoding.cache import RoomyCache, RoomyLayer
from detour.decoding.engine import Engine
from detour.decoding.request import Finish, Request, Sampling
from detour.errors import RequestError, SlotsBusy
from detour.slots.install import install

LENGTHS = (3, 9, 1, 14, 9, 6)


def prompts(lengths=LENGTHS, seed=0, vocabulary=320):
    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(3, vocabulary, (n,), generator=generator).tolist()) for n in lengths
    ]


def ask(ids, chain=None, name="r", stops=None, **sampling):
    return Request(name, tuple(ids), chain, Sampling(**sampling), stops)


def reference(model, ids, new=12, eos=None, **options):
    """What transformers generates for one row."""
    whole = torch.tensor([ids])
    settings = {"do_sample": False, "pad_token_id": 0, "eos_token_id": eos} | options
    out = model.generate(
        whole, attention_mask=torch.ones_like(whole), max_new_tokens=new, **settings
    )
    return tuple(out[0, len(ids) :].tolist())


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_greedy_equals_transformers(any_model, batch_size):
    expected = [reference(any_model, ids) for ids in prompts()]
    engine = Engine(any_model, install(any_model))
    results = engine.generate([ask(p, max_new_tokens=12) for p in prompts()], batch_size)
    assert [r.ids for r in results] == expected
    assert [r.prompt_tokens for r in results] == list(LENGTHS)
    assert {r.finish for r in results} == {Finish.LENGTH}


def test_greedy_equals_transformers_batch_with_padding(any_model):
    ids = prompts()
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(p)) + list(p) for p in ids])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in ids])
    theirs = any_model.generate(
        padded, attention_mask=mask, max_new_tokens=10, do_sample=False, pad_token_id=0
    )[:, longest:]
    ours = Engine(any_model, None).generate([ask(p, max_new_tokens=10) for p in ids])
    assert [list(r.ids) for r in ours] == theirs.tolist()


def test_sliding_window_models(make_model):
    model = make_model(
        "qwen3",
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=0,
        layer_types=["sliding_attention", "full_attention"],
    )
    expected = [reference(model, ids) for ids in prompts()]
    results = Engine(model, None).generate([ask(p, max_new_tokens=12) for p in prompts()])
    assert [r.ids for r in results] == expected


def test_rows_of_different_lengths_leave_and_the_rest_goes_on(tiny_llama):
    news = (1, 7, 20, 3, 12, 5)
    expected = [reference(tiny_llama, p, n) for p, n in zip(prompts(), news, strict=True)]
    rows_seen = []
    hook = tiny_llama.register_forward_pre_hook(
        lambda _, args, kwargs: rows_seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    requests = [ask(p, max_new_tokens=n) for p, n in zip(prompts(), news, strict=True)]
    results = Engine(tiny_llama, None).generate(requests)
    hook.remove()
    assert [r.ids for r in results] == expected
    assert rows_seen == [sum(n > step for n in news) for step in range(20)]


def test_eos_ends_a_row_and_is_left_out(tiny_llama):
    free = reference(tiny_llama, prompts()[0])
    end = free[4]
    results = Engine(tiny_llama, None).generate(
        [ask(p, max_new_tokens=12, eos_ids=(end,)) for p in prompts()]
    )
    expected = [reference(tiny_llama, p, eos=end) for p in prompts()]
    for result, theirs in zip(results, expected, strict=True):
        ended = end in theirs
        assert result.finish is (Finish.STOP if ended else Finish.LENGTH)
        assert result.ids == (theirs[: theirs.index(end)] if ended else theirs)


def test_a_chain_per_row_equals_the_rows_alone(any_model, random_adapter):
    slots = install(any_model)
    one, two = (random_adapter(slots.shapes, seed, rank) for seed, rank in ((1, 2), (2, 3)))
    chains = [None, Chain.of(one), 0.7 * one + two, Chain.of(two) * -0.4, None, Chain.of(one)]
    news = (12, 3, 10, 7, 5, 9)  # rows leave in between, the others keep their chains
    requests = [
        ask(p, c, max_new_tokens=n) for p, c, n in zip(prompts(), chains, news, strict=True)
    ]
    engine = Engine(any_model, slots)
    mixed = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert mixed == alone
    bare = engine.generate([ask(p, max_new_tokens=n) for p, n in zip(prompts(), news, strict=True)])
    differs = [m.ids != b.ids for m, b in zip(mixed, bare, strict=True)]
    assert differs == [chain is not None for chain in chains]


def test_a_chain_equals_the_merged_weights(tiny_llama, random_adapter):
    merged = copy.deepcopy(tiny_llama)
    slots = install(tiny_llama)
    chain = 0.8 * random_adapter(slots.shapes, 1)
    for name, update in chain.flatten().updates.items():
        merged.get_submodule(name).weight.data += update.delta()
    ours = Engine(tiny_llama, slots).generate([ask(p, chain, max_new_tokens=8) for p in prompts()])
    assert [r.ids for r in ours] == [reference(merged, p, 8) for p in prompts()]


def test_slots_are_free_and_the_model_untouched_afterwards(tiny_llama, random_adapter):
    before = copy.deepcopy(tiny_llama.state_dict())
    slots = install(tiny_llama)
    chain = Chain.of(random_adapter(slots.shapes))
    Engine(tiny_llama, slots).generate([ask(prompts()[0], chain)])
    assert slots.landed == 0
    with slots.hold({}):
        pass
    assert all(torch.equal(before[key], value) for key, value in tiny_llama.state_dict().items())
    head = tiny_llama.get_output_embeddings()
    assert not head._forward_pre_hooks


def test_busy_slots_are_refused_unless_the_holder_asks(tiny_llama, random_adapter):
    from detour.slots.chained import contents_for_chain

    slots = install(tiny_llama)
    engine = Engine(tiny_llama, slots)
    chain = Chain.of(random_adapter(slots.shapes))
    expected = engine.generate([ask(p, chain) for p in prompts()])
    with slots.hold(contents_for_chain(chain)):
        with pytest.raises(SlotsBusy):
            engine.generate([ask(prompts()[0])])
        assert engine.generate([ask(p) for p in prompts()], hold=False) == expected
        assert slots.landed == len(slots.shapes)


def test_stop_sequences_are_cut_off(tiny_llama):
    free = reference(tiny_llama, prompts()[1])
    stop = free[3:6]
    (result,) = Engine(tiny_llama, None).generate(
        [ask(prompts()[1], max_new_tokens=12, stop_ids=(stop, (318, 319)))]
    )
    assert result.ids == free[:3]
    assert result.finish is Finish.STOP


def test_a_stop_check_sees_everything_generated(tiny_llama):
    seen = []

    def check(ids):
        seen.append(tuple(ids))
        return len(ids) == 3

    free = reference(tiny_llama, prompts()[1])
    (result,) = Engine(tiny_llama, None).generate(
        [ask(prompts()[1], stops=check, max_new_tokens=12)]
    )
    assert result.ids == free[:3]
    assert seen == [free[:1], free[:2], free[:3]]


def test_streaming_gives_the_same_ids(tiny_llama):
    engine = Engine(tiny_llama, install(tiny_llama))
    for options in ({}, {"temperature": 1.0, "seed": 3}):
        request = ask(prompts()[3], max_new_tokens=12, **options)
        assert tuple(engine.stream(request)) == engine.generate([request])[0].ids


def test_streaming_holds_back_what_may_become_a_stop_sequence(tiny_llama):
    free = reference(tiny_llama, prompts()[1])
    engine = Engine(tiny_llama, None)
    stops = (free[4:7], (free[2], 1, 1))
    request = ask(prompts()[1], max_new_tokens=12, stop_ids=stops)
    assert tuple(engine.stream(request)) == free[:4]


def test_closing_a_stream_frees_the_slots(tiny_llama):
    slots = install(tiny_llama)
    engine = Engine(tiny_llama, slots)
    stream = engine.stream(ask(prompts()[0]))
    next(stream)
    with pytest.raises(SlotsBusy):
        engine.generate([ask(prompts()[0])])
    assert not torch.is_inference_mode_enabled()
    stream.close()
    assert len(engine.generate([ask(prompts()[0])])) == 1


def test_sampling_is_reproducible_and_independent_of_batch_mates(tiny_llama):
    engine = Engine(tiny_llama, None)
    requests = [
        ask(p, name=f"r{n}", temperature=1.3, seed=n % 2, max_new_tokens=15, **extra)
        for n, (p, extra) in enumerate(
            zip(prompts(), ({}, {"top_k": 20}, {"top_p": 0.8}, {}, {"top_k": 5}, {}), strict=True)
        )
    ]
    together = engine.generate([*requests, ask(prompts()[0], max_new_tokens=5)])[:-1]
    assert together == engine.generate(requests, batch_size=2)
    assert together == [engine.generate([request])[0] for request in requests]
    twice = [ask(prompts()[0], name=name, temperature=1.3) for name in "ab"]
    assert len({r.ids for r in engine.generate(twice)}) == 2


def test_repetition_penalty_equals_transformers(tiny_llama):
    expected = [reference(tiny_llama, p, repetition_penalty=1.7) for p in prompts()]
    results = Engine(tiny_llama, None).generate(
        [ask(p, max_new_tokens=12, repetition_penalty=1.7) for p in prompts()]
    )
    assert [r.ids for r in results] == expected
    assert expected != [reference(tiny_llama, p) for p in prompts()]


def test_dropout_is_off_and_training_mode_given_back(make_model):
    model = make_model("gpt2", attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5)
    expected = reference(model, prompts()[0])
    model.train()
    (result,) = Engine(model, None).generate([ask(prompts()[0], max_new_tokens=12)])
    assert result.ids == expected
    assert model.training


def test_the_head_sees_one_contiguous_token_a_row(tiny_llama):
    shapes = []
    head = tiny_llama.get_output_embeddings()
    head.register_forward_hook(
        lambda _, args, __: shapes.append((tuple(args[0].shape), args[0].is_contiguous()))
    )
    Engine(tiny_llama, None).generate([ask(p, max_new_tokens=2) for p in prompts()])
    assert shapes == [((len(LENGTHS), 1, 32), True)] * 2


@pytest.mark.parametrize(
    ("ids", "new", "word"),
    [
        ((), 4, "empty"),
        ((1, 320), 4, "320"),
        ((1, -1), 4, "-1"),
        (tuple([5] * 120), 9, "max_new_tokens=8"),
        (tuple([5] * 128), 1, "shorten"),
    ],
)
def test_bad_requests_are_refused_before_anything_runs(tiny_llama, ids, new, word):
    engine = Engine(tiny_llama, None)
    calls = []
    tiny_llama.register_forward_pre_hook(lambda *_: calls.append(1))
    good = ask((1, 2), name="good")
    with pytest.raises(RequestError, match=word) as caught:
        engine.generate([good, ask(ids, name="bad", max_new_tokens=new)])
    assert "'bad'" in str(caught.value)
    assert calls == []


def test_the_longest_allowed_request_runs(tiny_llama):
    (result,) = Engine(tiny_llama, None).generate([ask([5] * 120, max_new_tokens=8)])
    assert len(result.ids) == 8


def test_no_requests_no_results(tiny_llama):
    assert Engine(tiny_llama, None).generate([]) == []


def test_bad_batch_size(tiny_llama):
    with pytest.raises(RequestError, match="batch_size"):
        Engine(tiny_llama, None).generate([ask((1,))], batch_size=0)


def test_a_chain_without_slots_is_refused(tiny_llama, random_adapter):
    chain = Chain.of(random_adapter({"lm_head": (320, 32)}))
    with pytest.raises(RequestError, match="no slots"):
        Engine(tiny_llama, None).generate([ask((1, 2), chain)])


def test_logits_that_are_not_numbers_are_an_error(tiny_llama):
    tiny_llama.lm_head.weight.data[7] = float("nan")
    with pytest.raises(RequestError, match="not finite"):
        Engine(tiny_llama, None).generate([ask((1, 2))])


class TestRoomyCache:
    def test_grows_beyond_its_room(self):
        layer = RoomyLayer()
        pieces = [torch.randn(2, 3, n, 4) for n in (5, 1, 90, 1, 30)]
        for piece in pieces:
            keys, values = layer.update(piece, -piece)
        assert torch.equal(keys, torch.cat(pieces, dim=2))
        assert torch.equal(values, -keys)
        assert layer.get_seq_length() == 127

    def test_selects_rows(self):
        layer = RoomyLayer()
        states = torch.randn(3, 1, 4, 2)
        layer.update(states, states)
        layer.batch_select_indices(torch.tensor([0, 2]))
        more = torch.randn(2, 1, 1, 2)
        keys, _ = layer.update(more, more)
        assert torch.equal(keys, torch.cat([states[[0, 2]], more], dim=2))

    def test_selecting_before_the_first_token_is_nothing(self):
        RoomyLayer().batch_select_indices(torch.tensor([0]))

    def test_recurrent_models_are_refused_by_name(self):
        config = Qwen3NextConfig(num_hidden_layers=1, layer_types=["linear_attention"])
        with pytest.raises(RequestError, match="qwen3_next"):
            RoomyCache(config)
