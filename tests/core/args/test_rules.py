"""Rejections of values and of combinations of flags."""

from __future__ import annotations

import pytest

from engine.args.engine_args import EngineArgs
from engine.args.rules import check_rules

CASES = [
    ({"gpu_memory_utilization": 1.1}, "--gpu-memory-utilization 1.1: must be at most 1"),
    ({"gpu_memory_utilization": 0.0}, "--gpu-memory-utilization 0.0: must be above 0"),
    ({"cpu_offload_gb": -1.0}, "--cpu-offload-gb -1.0: must be at least 0"),
    ({"num_lookahead_slots": -1}, "--num-lookahead-slots -1: must be at least 0"),
    ({"num_scheduler_steps": 0}, "--num-scheduler-steps 0: must be at least 1"),
    ({"swap_space": -1.0}, "--swap-space -1.0: must be at least 0"),
    ({"swap_space": 1e9}, "more than 70 % of the host's"),
    ({"max_num_seqs": 0}, "--max-num-seqs 0: must be at least 1"),
    ({"num_gpu_blocks_override": 0}, "--num-gpu-blocks-override 0: must be at least 1"),
    ({"max_model_len": 0}, "--max-model-len 0: must be at least 1"),
    ({"scheduler_delay_factor": -0.5}, "--scheduler-delay-factor -0.5: must be at least 0"),
    ({"tokenizer_pool_size": -1}, "--tokenizer-pool-size -1: must be at least 0"),
    ({"tensor_parallel_size": 0}, "--tensor-parallel-size 0: must be at least 1"),
    ({"pipeline_parallel_size": 0}, "--pipeline-parallel-size 0: must be at least 1"),
    ({"port": 65536}, "--port 65536: must be at most 65535"),
    ({"step_timeout": 0.0}, "--step-timeout 0.0: must be above 0"),
    ({"drain_timeout": -1.0}, "--drain-timeout -1.0: must be at least 0"),
    ({"max_queued_requests": -1}, "--max-queued-requests -1: must be at least 0"),
    ({"max_queued_tokens": -1}, "--max-queued-tokens -1: must be at least 0"),
    ({"engine_silence_timeout": 1.0}, "--engine-silence-timeout 1: must be above 1"),
    ({"api_key": [""]}, "--api-key: the key is empty"),
    ({"api_key": ["a\nb"]}, "--api-key: the key holds a control character"),
    ({"ssl_cert_reqs": 2}, "--ssl-cert-reqs needs --ssl-certfile"),
    ({"seed": 2**64}, "--seed 18446744073709551616: must be at most"),
    ({"enable_reasoning": True}, "--enable-reasoning needs --reasoning-parser"),
    ({"enable_auto_tool_choice": True}, "--enable-auto-tool-choice needs --tool-call-parser"),
    ({"qlora_adapter_name_or_path": "x", "quantization": "awq"}, "needs --quantization bitsandbytes"),
    ({"ray_workers_use_nsight": True, "distributed_executor_backend": "mp"}, "needs --distributed-executor-backend ray"),
    ({"kv_transfer_config": {"kv_connector": "x"}}, "kv_connector needs kv_role"),
    ({"kv_transfer_config": {"kv_connector": "x", "kv_role": "boss"}}, "kv_connector needs kv_role"),
    ({"skip_tokenizer_init": True, "tokenizer": "x"}, "contradict each other"),
    ({"skip_tokenizer_init": True, "tokenizer_pool_size": 2}, "--skip-tokenizer-init and --tokenizer-pool-size contradict"),
    ({"skip_tokenizer_init": True, "reasoning_parser": "auto"}, "--skip-tokenizer-init and --reasoning-parser contradict"),
    ({"skip_tokenizer_init": True, "tool_call_parser": "hermes"}, "--skip-tokenizer-init and --tool-call-parser contradict"),
    ({"skip_tokenizer_init": True, "guided_decoding_backend": "xgrammar"}, "--guided-decoding-backend contradict each other"),
    ({"skip_tokenizer_init": True, "chat_template": "{{ x }}"}, "--skip-tokenizer-init and --chat-template contradict"),
    ({"ssl_keyfile": __file__}, "--ssl-keyfile and --ssl-certfile belong together"),
    ({"ssl_keyfile": "nowhere.pem", "ssl_certfile": __file__}, "--ssl-keyfile nowhere.pem: no such file"),
    ({"chat_template": "nowhere.jinja"}, "--chat-template nowhere.jinja: no such file"),
    ({"max_num_batched_tokens": 4, "max_num_seqs": 8}, "--max-num-batched-tokens 4 is smaller than --max-num-seqs 8"),
    ({"max_num_batched_tokens": 64, "max_model_len": 128, "enable_chunked_prefill": False}, "chunked prefill is off"),
    ({"max_num_partial_prefills": 2, "enable_chunked_prefill": False}, "above 1 needs chunked prefill"),
    ({"max_long_partial_prefills": 2}, "--max-long-partial-prefills 2 is more than --max-num-partial-prefills 1"),
    ({"num_scheduler_steps": 2, "speculative_model": "x"}, "--num-scheduler-steps above 1 does not go with speculative"),
    ({"num_scheduler_steps": 2, "pipeline_parallel_size": 2}, "does not go with chunked prefill and pipeline stages"),
    ({"pipeline_parallel_size": 2, "speculative_model": "x"}, "--pipeline-parallel-size above 1 does not go with speculative"),
    ({"distributed_executor_backend": "external_launcher", "pipeline_parallel_size": 2}, "does not go with --pipeline-parallel-size"),
    ({"distributed_executor_backend": "external_launcher", "scheduler_delay_factor": 1.0}, "does not go with --scheduler-delay-factor"),
    ({"distributed_executor_backend": "uni", "tensor_parallel_size": 2}, "uni is one worker, --tensor-parallel-size 2 needs as many"),
    ({"enable_lora": True, "cpu_offload_gb": 1.0}, "--enable-lora does not go with --cpu-offload-gb"),
    ({"max_loras": 4, "max_cpu_loras": 2}, "--max-cpu-loras 2 is less than --max-loras 4"),
    ({"enable_prompt_adapter": True}, "--enable-prompt-adapter needs --max-prompt-adapter-token above 0"),
    ({"ngram_prompt_lookup_min": 5, "ngram_prompt_lookup_max": 2}, "is more than --ngram-prompt-lookup-max 2"),
    ({"num_speculative_tokens": 2}, "--num-speculative-tokens needs --speculative-model"),
    ({"speculative_disable_by_batch_size": 1}, "must be at least 2"),
    ({"rope_scaling": {"factor": 2.0}}, "--rope-scaling: rope_type is missing"),
    ({"rope_scaling": {"rope_type": "linear", "type": "yarn"}}, "contradict each other"),
    ({"rope_theta": 0.0}, "--rope-theta 0: must be above 0"),
    ({"served_model_name": ["a", " "]}, "--served-model-name: a name is empty"),
    ({"allowed_local_media_path": "/nowhere/at/all"}, "--allowed-local-media-path /nowhere/at/all: no such directory"),
]


@pytest.mark.parametrize(("values", "says"), CASES, ids=lambda part: part if isinstance(part, str) else None)
def test_rejections(values, says):
    problems = check_rules(EngineArgs.from_values(values))
    assert any(says in problem.line() for problem in problems), problems
    assert all(problem.status == 2 and problem.fix for problem in problems)


def test_the_defaults_break_no_rule():
    assert check_rules(EngineArgs()) == []
