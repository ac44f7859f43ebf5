"""The traps of training and comparing, as exact edits of the source that put each of them back.

`test_traps.py` looks that every edit still fits the source; `test_traps_long.py` makes a copy of
the source for each trap, puts it back there, and sees the named tests fail.
"""

from dataclasses import dataclass

Edit = tuple[str, str, str]
"""A file under src/detour, what stands there once, and what the trap makes of it."""


@dataclass(frozen=True)
class Trap:
    """One trap: its pitfall's number, what goes wrong, the tests that see it, and its edits."""

    pitfall: int
    wrong: str
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]

    @property
    def name(self) -> str:
        """For people and test ids."""
        return f"{self.pitfall:02d}-{self.wrong.replace(' ', '-')}"


def _trap(pitfall: int, wrong: str, tests: str, *edits: Edit) -> Trap:
    names = tuple(f"test_pitfall_{pitfall:02d}_{test}" for test in tests.split())
    return Trap(pitfall, wrong, names, edits)


TRAPS = (
    _trap(
        1, "an empty answer is learned", "a_row_without_an_answer_is_an_error_with_its_line",
        ("model/examples.py",
         'if turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():',
         'if turns[-1]["role"] != "assistant":'),
    ),
    _trap(
        1, "a row without supervision passes", "no_supervised_token_is_an_error_with_its_place",
        ("model/chat.py", "    if not any(mask):\n", "    if False:\n"),
    ),
    _trap(
        1, "the shown example hides the mask",
        "every_rows_learned_tokens_are_counted_and_one_is_shown",
        ("data/tokens.py", "yield str(tokenizer.decode(list(ids[start:place]))), mask[start]",
         "yield str(tokenizer.decode(list(ids[start:place]))), True"),
    ),
    _trap(
        1, "all tokens count as learned",
        "every_rows_learned_tokens_are_counted_and_one_is_shown",
        ("data/tokens.py", "learned.append(1 if answer else sum(mask))",
         "learned.append(len(mask))"),
    ),
    _trap(
        2, "the prefix is assumed", "a_template_that_rewrites_what_was_asked_is_refused",
        ("model/chat.py", "    if ids[: len(prefix)] == prefix:\n", "    if True:\n"),
    ),
    _trap(
        3, "padding is masked by id", "padding_is_told_by_length_where_pad_is_the_end_token",
        ("model/rows.py", "        mask[number, :length] = 1\n",
         "        mask[number] = (ids[number] != pad_id).long()\n"),
    ),
    _trap(
        3, "the pad id is never learned", "padding_is_told_by_length_where_pad_is_the_end_token",
        ("model/rows.py", "[t if k else IGNORED for", "[t if k and t != pad_id else IGNORED for"),
    ),
    _trap(
        3, "the end token is left out",
        "a_smoke_generation_stops padding_is_told_by_length_where_pad_is_the_end_token "
        "training_says_where_answers_do_not_end",
        ("model/chat.py", "            return len(prompt), place + 1\n",
         "            return len(prompt), place\n"),
    ),
    _trap(
        3, "endless answers are not told", "training_says_where_answers_do_not_end",
        ("cli/train_adapter.py", "    if tried.unended:\n", "    if False:\n"),
    ),
    _trap(
        4, "the tokenizer adds a second begin token",
        "there_is_one_begin_token_and_not_two",
        ("model/chat.py", "tokenizer.encode(rendered, add_special_tokens=False)",
         "tokenizer.encode(rendered)"),
    ),
    _trap(
        4, "another template is accepted",
        "another_template_is_refused_wherever_the_adapter_is_used",
        ("model/belonging.py",
         "return known and one.template_sha256 != other.template_sha256", "return False"),
    ),
    _trap(
        4, "the template is not hashed",
        "the_template_stands_beside_the_adapter_and_its_hash_in_it "
        "another_template_is_refused_wherever_the_adapter_is_used",
        ("adapter/fingerprint.py", "template_sha256=_hash_template(folder),",
         "template_sha256=None,"),
    ),
    _trap(
        4, "the template is not saved",
        "the_template_stands_beside_the_adapter_and_its_hash_in_it",
        ("training/record.py", "        **tokenizer_files(outcome.base),\n", ""),
    ),
    _trap(
        5, "truncation is a warning however much",
        "too_long_rows_are_told_in_rows_and_percent more_than_one_percent_is_not_trained_on",
        ("data/report.py", '"error" if share > 0.01 else "warning"', '"warning"'),
    ),
    _trap(
        5, "rows are cut silently",
        "more_than_one_percent_is_not_trained_on nothing_is_ever_cut_silently",
        ("model/rows.py", "    if len(ids) > longest:\n",
         "    ids, learned = ids[:longest], learned[:longest]\n    if len(ids) > longest:\n"),
        ("data/findings.py", "finding.code in BLOCKING", 'finding.code == "leakage"'),
    ),
    _trap(
        5, "a cleaned copy keeps what does not fit", "fixed_rows_fit",
        ("data/tokens.py", 'return "too_long" if is_cut else ""', 'return ""'),
    ),
    _trap(
        5, "blocks of a text count as cut",
        "plain_texts_are_learned_in_blocks_and_none_is_too_long",
        ("data/tokens.py",
         "        if limit and len(ids) > limit and not isinstance(record, Plain):\n",
         "        if limit and len(ids) > limit:\n"),
    ),
    _trap(
        5, "a head cuts without a word", "a_head_cuts_one_percent_at_most_and_says_so",
        ("training/length.py", "    if not cut:\n", "    if True:\n"),
    ),
    _trap(
        6, "the mean of the parts' means",
        "gradients_do_not_depend_on_the_micro_batch_size "
        "a_short_last_step_is_divided_by_its_own_tokens",
        ("training/loop.py", "return self.loss(part.to(self.base.device), count)",
         "return self.loss(part.to(self.base.device)) / "
         "len(batch.parts(self.config.micro_batch_size))"),
    ),
    _trap(
        6, "a short step is divided as a whole one",
        "a_short_last_step_is_divided_by_its_own_tokens",
        ("training/loop.py", "        count = batch.supervised\n",
         "        count = batch.supervised * self.config.batch_size // len(batch.ids)\n"),
    ),
    _trap(
        6, "the mean of the neighbours' means",
        "neighbours_are_divided_by_their_own_tokens_too",
        ("training/neighbours.py", "return held * (part.supervised / whole)",
         "return held / len(parts)"),
    ),
    _trap(
        6, "a head's mean of means", "heads_too",
        ("training/heads.py", "* (len(part) / len(places))", "/ -(-len(places) // size)"),
    ),
    _trap(
        7, "keys that land nowhere are left out", "a_key_that_lands_nowhere_is_an_error",
        ("model/binding.py",
         "    slots.check({n: (u.out_features, u.in_features) for n, u in named.updates.items()})\n"
         "    _check_kinds(named, slots)\n",
         "    there = {n: u for n, u in named.updates.items() if n in slots.kinds}\n"
         "    named = replace(named, updates=there)\n"),
    ),
    _trap(
        7, "an adapter of zeros passes", "an_adapter_of_zeros_is_an_error",
        ("model/binding.py", "    _check_alive(adapter, updates)\n", ""),
        ("model/acting.py", "        if not acts(base, adapter, ids):\n",
         "        if False:\n"),
    ),
    _trap(
        7, "nobody looks at the logits", "an_adapter_that_moves_no_logit_is_an_error",
        ("model/acting.py", "        if not acts(base, adapter, ids):\n",
         "        if False:\n"),
    ),
    _trap(
        8, "merged in bf16", "a_merge_is_summed_in_fp32_and_rounded_once",
        ("model/merging.py",
         "return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).cpu()",
         "return tensor.detach().to(torch.bfloat16).cpu()"),
        ("model/merging.py", "    if not difference <= close * ", "    if difference < -close * "),
        ("model/merging.py", "    if abs(share - 1) > LOST:\n", "    if False:\n"),
    ),
    _trap(
        8, "the logits are not compared",
        "a_merge_compares_the_logits_and_writes_nothing_that_says_otherwise",
        ("model/merging.py", "    if not difference <= close * ", "    if difference < -close * "),
        ("model/merging.py", "    if abs(share - 1) > LOST:\n", "    if False:\n"),
    ),
    _trap(
        8, "packed weights are merged into", "a_packed_base_is_not_merged_into",
        ("model/merging.py", "    if method_of(base.model.config):\n", "    if False:\n"),
        ("model/merging.py", "    model = base.share().model\n",
         "    model = copy.deepcopy(base.model)\n"),
    ),
    _trap(
        8, "chains are flattened in bf16", "flattening_a_chain_is_exact_in_fp32_too",
        ("adapter/update.py",
         "    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))\n",
         "    return tensor\n"),
    ),
    _trap(
        9, "groups are told by the letter",
        "questions_that_differ_in_form_only_stay_on_one_side",
        ("training/split.py", "groups.setdefault(normalised(input_of(row)), [])",
         "groups.setdefault(input_of(row), [])"),
        ("training/split.py", "kept = [row for row in rows if normalised(input_of(row)) not in",
         "kept = [row for row in rows if input_of(row) not in"),
        ("training/split.py", "return kept, [row for row in rows if normalised(input_of(row)) in",
         "return kept, [row for row in rows if input_of(row) in"),
    ),
    _trap(
        9, "leakage is only said",
        "test_rows_that_train_block_the_training from_python_too classes_too",
        ("data/findings.py",
         '    return finding.severity == "error" and finding.code in BLOCKING\n',
         "    return False\n"),
        ("data/reading.py", "        if inside := leaked(loaded, split):\n",
         "        if False and (inside := leaked(loaded, split)):\n"),
    ),
    _trap(
        9, "near duplicates are not seen",
        "test_rows_that_train_are_found_to_the_letter_and_nearly "
        "repeated_rows_are_found_whatever_their_form a_fixed_copy_leaks_no_more",
        ("data/duplicates.py", "NEAR = 0.85 ", "NEAR = 2.00 "),
    ),
    _trap(
        9, "rows are compared by the letter",
        "repeated_rows_are_found_whatever_their_form "
        "test_rows_that_train_are_found_to_the_letter_and_nearly",
        ("data/duplicates.py", "blake2b(normalised(told).encode(", "blake2b(told.encode("),
    ),
    _trap(
        9, "a cleaned copy still leaks", "a_fixed_copy_leaks_no_more",
        ("data/clean.py", '            why = "leakage"\n', '            why = ""\n'),
    ),
    _trap(
        10, "texts stay decomposed", "texts_are_kept_composed_and_asked_so",
        ("model/examples.py", '    return unicodedata.normalize("NFC", told)\n',
         "    return told\n"),
    ),
    _trap(
        10, "a byte order mark is text", "a_byte_order_mark_is_no_part_of_the_text",
        ("data/forms.py", '"utf-8-sig" if first else "utf-8"', '"utf-8"'),
        ("data/forms.py", '        return raw.decode("utf-8-sig")\n',
         '        return raw.decode("utf-8")\n'),
        ("data/forms.py", 'io.TextIOWrapper(bytes_, "utf-8-sig", newline="")',
         'io.TextIOWrapper(bytes_, "utf-8", newline="")'),
    ),
    _trap(
        10, "other encodings are read with losses",
        "what_is_not_utf8_is_an_error_with_its_line",
        ("data/forms.py", 'line.decode("utf-8-sig" if first else "utf-8")',
         'line.decode("utf-8-sig" if first else "utf-8", errors="replace")'),
        ("data/forms.py", 'io.TextIOWrapper(bytes_, "utf-8-sig", newline="")',
         'io.TextIOWrapper(bytes_, "utf-8-sig", errors="replace", newline="")'),
    ),
    _trap(
        10, "damage is not seen", "wrongly_decoded_letters_are_found_and_mended",
        ("data/damage.py",
         "return REPLACEMENT in text or repaired(text) != text", "return False"),
    ),
    _trap(
        10, "small letters instead of casefold", "a_sharp_s_is_two",
        ("measure/metrics.py", '"NFC", text).casefold()', '"NFC", text).lower()'),
    ),
    _trap(
        10, "CSV has commas", "csv_with_semicolons_and_decimal_commas",
        ("data/forms.py", r'DELIMITERS = (",", ";", "\t", "|")', 'DELIMITERS = (",",)'),
    ),
    _trap(
        10, "decimal commas are no numbers", "csv_with_semicolons_and_decimal_commas",
        ("data/numbers.py", r'"comma": _pattern(",", r"\.")', r'"comma": _pattern("#", r"\.")'),
    ),
    _trap(
        10, "accounts are not personal", "bank_accounts_and_tax_numbers_are_personal",
        ("data/personal.py", "return places[-1] + 1 if int(digits) % 97 == 1 else 0", "return 0"),
    ),
    _trap(
        10, "check digits do not count", "bank_accounts_and_tax_numbers_are_personal",
        ("data/personal.py", "return places[-1] + 1 if int(digits) % 97 == 1 else 0",
         "return places[-1] + 1"),
    ),
    _trap(
        10, "tax numbers are not personal", "bank_accounts_and_tax_numbers_are_personal",
        ("data/personal.py", "return len(told) if (11 - product) % 10 == digits[-1] else 0",
         "return 0"),
    ),
    _trap(
        10, "umlauts are gaps in ROUGE", "umlauts_are_letters_in_rouge",
        ("measure/texts.py", 'sign if sign.isalnum() or (marks and kept) else " "',
         'sign if sign.isascii() and sign.isalnum() else " "'),
    ),
    _trap(
        10, "a BLEU of one's own", "bleu_and_chrf_are_sacrebleus",
        ("measure/texts.py", "metrics.BLEU()", 'metrics.BLEU(lowercase=True, tokenize="none")'),
    ),
    _trap(
        10, "one figure for all languages", "languages_are_told_apart",
        ("evaluate/answers.py", "    if len(enough) < 2 or ", "    if True or "),
    ),
    _trap(
        11, "the base is not judged", "the_base_is_judged_on_the_same_rows",
        ("cli/evaluate.py", 'wanted = {"base": None, **', "wanted = {**"),
    ),
    _trap(
        11, "neutral text is measured without the adapter",
        "neutral_text_is_measured_before_and_after",
        ("cli/train_adapter.py", "retention(base, result.adapter)", "retention(base, None)"),
    ),
    _trap(
        11, "the last checkpoint is kept", "the_best_checkpoint_is_kept_and_not_the_last",
        ("training/descend.py", "if measured < state.best_loss:", "if True:"),
    ),
    _trap(
        12, "the rate of full fine-tuning", "the_rate_is_loras_and_batches_are_small",
        ("training/config.py", "RATE_AT_2048 = 2e-4 ", "RATE_AT_2048 = 2e-5 "),
    ),
    _trap(
        12, "large batches", "the_rate_is_loras_and_batches_are_small",
        ("training/config.py", "batch_size: int = Field(8, ge=1,",
         "batch_size: int = Field(128, ge=1,"),
    ),
    _trap(
        12, "moments begin anew",
        "a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does",
        ("training/checkpoint.py",
         "    restore_moments(optimiser, factors.parameters(), tensors, step)\n", ""),
    ),
    _trap(
        12, "the schedule begins anew",
        "a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does",
        ("training/descend.py", "        state = resumed\n",
         "        state = resumed\n        begun = state.step\n"),
        ("training/descend.py", "rate_at(state.step, plan", "rate_at(state.step - begun, plan"),
    ),
    _trap(
        12, "the rows begin anew",
        "a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does",
        ("training/descend.py", "        state = resumed\n",
         "        state = resumed\n        begun = state.step\n"),
        ("training/descend.py", "(step_of, state.step,", "(step_of, state.step - begun,"),
    ),
    _trap(
        12, "the order is nobody's",
        "a_resumed_run_ends_bit_for_bit_where_an_undisturbed_one_does",
        ("training/batches.py", 'random.Random(f"{self._seed}/{epoch}")', "random.Random()"),
    ),
)  # fmt: skip
