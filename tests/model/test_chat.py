import pytest
from tokenizers.processors import TemplateProcessing

from detour.errors import BaseError, DataError
from detour.model.chat import render, supervised

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who was Einstein?"},
    {"role": "assistant", "content": "A hairdresser 🙂"},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "In Ulm."},
]
ONE = TALK[1:3]


def learnt(tokenizer, ids, mask):
    """The supervised runs as text."""
    runs, before = [], False
    for token, counted in zip(ids, mask, strict=True):
        if counted:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = counted
    return [tokenizer.decode(run) for run in runs]


def test_render_ends_where_the_answer_begins(tiny_tokenizer):
    ids = render(tiny_tokenizer, TALK[:2], add_generation_prompt=True)
    assert tiny_tokenizer.decode(ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho was Einstein?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert ids.count(tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_no_second_bos_is_added(make_tokenizer):
    tokenizer = make_tokenizer("<|im_start|>{{ messages[0]['content'] }}")
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    assert tokenizer.encode("a")[0] == tokenizer.bos_token_id
    ids = render(tokenizer, [{"role": "user", "content": "a"}], add_generation_prompt=True)
    assert ids.count(tokenizer.bos_token_id) == 1


def test_only_assistant_turns_are_supervised_with_their_end_token(tiny_tokenizer):
    ids, mask = supervised(tiny_tokenizer, TALK)
    assert len(ids) == len(mask)
    assert ids == render(tiny_tokenizer, TALK, add_generation_prompt=False)
    assert learnt(tiny_tokenizer, ids, mask) == ["A hairdresser 🙂<|im_end|>", "In Ulm.<|im_end|>"]


def test_a_turn_of_weight_zero_is_asked_and_not_learned(tiny_tokenizer):
    talk = [*TALK[:2], {**TALK[2], "weight": 0}, *TALK[3:]]
    ids, mask = supervised(tiny_tokenizer, talk)
    assert ids == supervised(tiny_tokenizer, TALK)[0]
    assert learnt(tiny_tokenizer, ids, mask) == ["In Ulm.<|im_end|>"]
    with pytest.raises(DataError, match="nothing to learn"):
        supervised(tiny_tokenizer, talk[:3])


def test_an_end_token_that_is_also_the_pad_token_is_still_supervised(make_tokenizer):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    ids, mask = supervised(tokenizer, ONE)
    assert learnt(tokenizer, ids, mask) == ["A hairdresser 🙂<|im_end|>"]


def test_a_template_without_an_end_token_supervises_the_whole_turn(make_tokenizer):
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.eos_token = None
    ids, mask = supervised(tokenizer, [TALK[1], {"role": "assistant", "content": "(A)"}])
    assert learnt(tokenizer, ids, mask) == ["(A)\n"]


def test_a_template_that_rewrites_earlier_turns_is_refused(make_tokenizer):
    """As reasoning models do, which drop earlier thoughts when the talk goes on."""
    tokenizer = make_tokenizer(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and not loop.last %}…"
        "{% else %}{{ m['content'] }}{% endif %}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    supervised(tokenizer, ONE)
    with pytest.raises(DataError, match=r"true prefix.*hairdresser"):
        supervised(tokenizer, TALK)


def test_a_generation_prompt_that_the_answer_does_not_begin_with_is_refused(make_tokenizer):
    tokenizer = make_tokenizer(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
    )
    with pytest.raises(DataError, match="true prefix"):
        supervised(tokenizer, ONE)


def test_tokens_that_merge_across_the_border_are_refused(make_tokenizer):
    """The answer's first letters must not melt into the prompt's last token."""
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}Einst{% endif %}"
    )
    talk = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Einstein"},
    ]
    with pytest.raises(DataError, match="true prefix"):
        supervised(tokenizer, talk)


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([], "no messages"),
        ([{"role": "user"}], "no content"),
        ([{"content": "x"}], "no role"),
        ([{"role": "user", "content": None}], "no content"),
        ([TALK[1]], "nothing to learn"),
        ([TALK[2]], "begins with the assistant"),
    ],
)
def test_bad_conversations_are_refused(tiny_tokenizer, messages, word):
    with pytest.raises(DataError, match=word):
        supervised(tiny_tokenizer, messages)


def test_roles_that_the_template_refuses_are_named(make_tokenizer):
    tokenizer = make_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match=r"must alternate.*user, assistant"):
        supervised(tokenizer, ONE)


def test_a_tokenizer_without_a_template_is_named(make_tokenizer):
    with pytest.raises(BaseError, match="no chat template"):
        render(make_tokenizer(None), ONE, add_generation_prompt=True)
