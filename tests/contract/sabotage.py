"""Plugins that are wrong in one way each: the example of their kind with one change, and the tests that must see it."""

from __future__ import annotations

from typing import NamedTuple


class Sabotage(NamedTuple):
    """``change``: (text of the example, what stands there instead). ``caught``: the tests that must fail, all of them and no other;
    ``*`` where the fault is such that many do (a hook that cannot be called)."""

    kind: str
    change: tuple[str, str]
    caught: tuple[str, ...]


_TOP = "\nENGINE_API = 1\n"
SABOTAGES: dict[str, Sabotage] = {
    # whatever the kind
    "heavy_import": Sabotage("policy", (_TOP, "\nimport numpy\nENGINE_API = 1\n"), ("test_importing_it_is_light",)),
    "no_docstring": Sabotage("policy", ('"""The shortest prompt runs first; named example."""', ""), ("test_its_first_docstring_line_says_what_it_is",)),
    "old_api": Sabotage("policy", ("ENGINE_API = 1", "ENGINE_API = 0"), ("*",)),
    "prints": Sabotage("policy", (_TOP, "\nENGINE_API = 1\nprint('hello')\n"), ("test_importing_it_has_no_side_effects",)),
    "sets_environment": Sabotage(
        "policy", (_TOP, "\nimport os\nENGINE_API = 1\nos.environ['OMP_NUM_THREADS'] = '97'\n"), ("test_importing_it_has_no_side_effects",)
    ),
    "starts_a_thread": Sabotage(
        "policy", (_TOP, "\nimport threading, time\nENGINE_API = 1\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"),
        ("test_importing_it_has_no_side_effects",),
    ),
    "wrong_argument": Sabotage("policy", ("engine_create_policy()", "engine_create_policy(modle)"), ("*",)),
    "no_marker": Sabotage("policy", ("@hookimpl\n", ""), ("*",)),
    "shared_object": Sabotage("policy", ("    return ShortestPrompt()", "    return _ONE\n\n\n_ONE = ShortestPrompt()"), ("test_every_creation_is_its_own",)),
    "returns_the_class": Sabotage("policy", ("return ShortestPrompt()", "return ShortestPrompt"), ("*",)),
    # loaders
    "eager_list": Sabotage(
        "loader", ("        import torch\n\n        for name in self.archive.files:\n            yield name, torch.from_numpy(self.archive[name])",
                   "        import torch\n\n        return [(name, torch.from_numpy(self.archive[name])) for name in self.archive.files]"),
        ("test_tensors_come_lazily",),
    ),
    "tensor_twice": Sabotage(
        "loader", ("            yield name, torch.from_numpy(self.archive[name])\n", "            yield name, torch.from_numpy(self.archive[name])\n        yield name, torch.zeros(1)\n"),
        ("test_it_yields_each_tensor_once_and_exactly",),
    ),
    "wrong_values": Sabotage("loader", ("torch.from_numpy(self.archive[name])", "torch.from_numpy(self.archive[name]) * 2"), ("test_it_yields_each_tensor_once_and_exactly",)),
    "one_pass": Sabotage(
        "loader", ("        for name in self.archive.files:\n            yield name, torch", "        names, self.archive.files = self.archive.files, []\n        for name in names:\n            yield name, torch"),
        ("test_a_second_pass_starts_again",),
    ),
    "wrong_header": Sabotage("loader", ("array.nbytes, str(self.path)", "array.nbytes + 1, str(self.path)"), ("test_headers_tell_what_will_come",)),
    "bare_error": Sabotage(
        "loader", ("raise ModelFileError(f\"{path} is not a whole NumPy archive ({error}).\", fix=\"write it again with numpy.savez\") from error", "raise"),
        ("test_missing_files_are_named", "test_a_cut_file_is_refused_by_name"),
    ),
    "close_once": Sabotage("loader", ("        self.archive.close()", "        self.archive.close()\n        del self.archive"), ("test_closing_twice_is_harmless",)),
    # tokenizers
    "loses_text": Sabotage("tokenizer", ('text.encode("utf-8", "surrogatepass")', 'text.strip().encode("utf-8", "surrogatepass")'), ("test_decoding_gives_the_text_back",)),
    "shows_the_end": Sabotage("tokenizer", ('.decode("utf-8", "replace")', '.decode("utf-8", "replace") + ("<end>" if END in token_ids else "")'), ("test_the_end_token_is_special",)),
    "special_from_users": Sabotage(
        "tokenizer", ('        return list(text.encode', '        if "<end>" in text:\n            return [END]\n        return list(text.encode'), ("test_a_users_text_never_becomes_a_special_token",)
    ),
    "out_of_range": Sabotage("tokenizer", ("        return END + 1", "        return 100"), ("*",)),
    # scheduling
    "no_total_order": Sabotage("policy", ("request.arrival, request.id)", "request.arrival)"), ("test_the_order_is_total",)),
    "moving_key": Sabotage("policy", ("(request.prompt_tokens,", "(request.prompt_tokens + request.output_tokens,"), ("test_keys_do_not_change_while_a_request_lives",)),
    "impure_key": Sabotage(
        "policy", ("        return (request.prompt_tokens,", "        self.seen = getattr(self, 'seen', 0) + 1\n        return (self.seen, request.prompt_tokens,"),
        ("test_keys_depend_on_the_request_alone", "test_keys_do_not_change_while_a_request_lives"),
    ),
    "swaps_without_room": Sabotage("preemption", (" and pages <= free_host_pages", ""), ("test_it_swaps_only_into_room_that_is_there",)),
    "hides_its_need": Sabotage("preemption", ("        return True\n", "        return False\n"), ("test_it_swaps_only_where_it_says_that_it_needs_the_room",)),
    "no_such_dtype": Sabotage("kv_cache_dtype", ('return "float16"', 'return "half16"'), ("test_the_storage_is_a_dtype",)),
    # producers
    "says_another_weight": Sabotage("producer", ('"weight_scale": rounded.scale}, rounded)', '"weight_scale": rounded.scale}, GroupedInteger.quantize(weight.roll(1), bits=8))'), ("test_the_weight_means_nearly_the_source",)),
    "promises_too_little": Sabotage("producer", ("return 8.0", "return 4.0"), ("test_its_tensors_are_as_small_as_it_says",)),
    "writes_to_the_source": Sabotage("producer", ("        return ProducedWeight({", "        weight.zero_()\n        return ProducedWeight({"), ("test_the_source_is_not_written_to", "test_the_weight_means_nearly_the_source", "test_it_says_the_same_twice")),
    "forgets_what_was_kept": Sabotage("producer", ('"ignore": list(kept)', '"ignore": []'), ("test_the_checkpoint_says_how_to_read_it",)),
    # guides
    "allows_too_much": Sabotage("guided_decoding", ("bool(text) and self.fits(self.written[-1] + text)", "bool(text)"), ("*",)),
    "never_ends": Sabotage("guided_decoding", ("        bits[self.vocabulary.end] = self.written[-1] in self.choices\n", ""), ("test_sentences_are_accepted_and_may_end[choice]", "test_masks_agree_with_advancing[choice]")),
    "forgets_to_roll_back": Sabotage("guided_decoding", ("        del self.written[len(self.written) - count :]", "        pass"), ("test_rolling_back_restores_the_state[choice]",)),
    "shares_state": Sabotage("guided_decoding", ('        self.written = [b""]', '        self.written = vocabulary.__dict__.setdefault("written", [b""])'), ("*",)),
    # parsers
    "depends_on_cuts": Sabotage("reasoning_parser", ("        keep = held_back(self.waiting, self.tags[0]) if self.tags else 0", "        keep = 0"), ("test_any_cut_gives_the_same_message", "test_empty_pieces_change_nothing")),
    "loses_the_end": Sabotage("reasoning_parser", ("        return Delta(\"\", rest) if self.inside() else Delta(rest)", "        return Delta()"), ("*",)),
    "quadratic": Sabotage(
        "tool_parser", ("        pieces = text.split", "        self.all = getattr(self, 'all', '') + text\n        for _ in self.all:\n            pass\n        pieces = text.split"),
        ("test_time_grows_in_proportion_to_the_output",),
    ),
    "shared_calls": Sabotage("tool_parser", ("        return CallState()", "        self.state = getattr(self, 'state', None) or CallState()\n        return self.state"), ("*",)),
    # sampling
    "accepts_anything": Sabotage("logits_processor", ("        if unknown:", "        return None\n        if unknown:"), ("test_wrong_arguments_are_refused_with_a_reason",)),
    "makes_nan": Sabotage("logits_processor", ("        return logits\n", "        return logits * float('nan')\n"), ("test_a_row_stays_a_row", "test_the_same_row_gives_the_same_result", "test_sequences_do_not_share_state")),
    "biased": Sabotage("acceptance", ("rest = (rest - draft_probabilities[place]).clamp(min=0)", "rest = rest.clamp(min=0)"), ("test_the_distribution_is_the_targets",)),
    "too_many_drafts": Sabotage("speculation", ("before + 1 + count]", "before + 3 + count]"), ("test_drafts_are_bounded",)),
    # quantizers, devices, executors
    "wrong_scale": Sabotage("quantization", ('GroupedInteger.quantize(tensors["weight"], bits=8)', 'GroupedInteger.quantize(tensors["weight"] * 1.5, bits=8)'), ("*",)),
    "keeps_dense": Sabotage(
        "quantization", ("        from engine.layers.packed_integer import GroupedInteger\n\n        return GroupedInteger.quantize(tensors[\"weight\"], bits=8)",
                         "        from engine.layers.packed import DensePacked\n\n        return DensePacked(tensors[\"weight\"])"),
        ("test_it_is_smaller_than_the_dense_weight",),
    ),
    "wrong_axes": Sabotage("quantization", ("output_axis=0, input_axis=1", "output_axis=1, input_axis=0"), ("test_shards_are_cuts_of_the_whole[output]", "test_shards_are_cuts_of_the_whole[input]")),
    "more_free_than_total": Sabotage("device", ("os.sysconf(\"SC_AVPHYS_PAGES\") * page", "os.sysconf(\"SC_PHYS_PAGES\") * page * 2"), ("test_the_probe_tells_facts_that_fit", "test_memory_adds_up")),
    "probe_imports_torch": Sabotage("device", ("    memory = host_memory()\n", "    import torch\n\n    memory = host_memory()\n"), ("test_the_probe_is_light",)),
    "hides_a_failed_step": Sabotage(
        "executor", ("        return self.thread.submit(self.worker.run, step)", "        return self.thread.submit(lambda: self.worker.run(step) if step.index >= 0 else StepResult(index=step.index))"),
        ("test_a_failing_step_fails_its_future",),
    ),
    "out_of_order": Sabotage(
        "executor", ("        return self.thread.submit(self.worker.run, step)", "        return self.thread.submit(self.worker.run, Step(index=step.index ^ 1, work=step.work))"),
        ("test_steps_are_answered_in_order",),
    ),
    "never_closes": Sabotage("executor", ("            self.thread.submit(self.worker.close).result()\n", ""), ("test_shutdown_closes_the_worker_and_leaves_no_process",)),
    "unknown_endpoint": Sabotage("task", ('frozenset({"completions"})', 'frozenset({"completions", "everything"})'), ("test_it_opens_known_endpoints",)),
    "too_much_matched": Sabotage("kv_connector", ("        return 0\n", "        return len(token_ids)\n"), ("test_matches_are_bounded[scheduler]", "test_matches_are_bounded[worker]")),
    "raises_on_abort": Sabotage(
        "extension", ("    _COUNTER.ended[record.finish_reason] = _COUNTER.ended.get(record.finish_reason, 0) + 1", "    _COUNTER.ended[record.finish_reason] = {'stop': 1, 'length': 2}[record.finish_reason]"),
        ("test_it_takes_the_record_of_any_request",),
    ),
}  # fmt: skip
