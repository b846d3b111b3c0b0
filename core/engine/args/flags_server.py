"""Flags of the HTTP server and of request defaults."""

from __future__ import annotations

from engine.args.flag import Flag

LEVELS = ("debug", "info", "warning", "error", "critical", "trace")
TOOL_PARSERS = (
    "granite", "granite-20b-fc", "hermes", "internlm", "jamba", "llama3_json", "mistral", "pythonic",
)  # fmt: skip

#: Flags of the engine's own table that concern requests; LLM() takes them too.
REQUESTS = (
    Flag("--logits-processor-pattern", "text", None,
         "Pattern that the whole of a Python name must match for requests to use it as a logits processor; unset: installed ones only.",
         metavar="REGEX"),
    Flag("--max-logprobs", "int", 20, "Most log-probabilities per token that a request may ask for."),
    Flag("--served-model-name", "words", None,
         "Names that requests may call the model; the first is the one in answers."),
    Flag("--generation-config", "text", "auto",
         "Where request defaults come from: auto (the model's generation_config.json), vllm (none) or a directory."),
    Flag("--override-generation-config", "json", None, "Request defaults on top of that."),
)  # fmt: skip

#: The HTTP server's own.
HTTP = (
    Flag("--host", "text", None, "Address to listen on; unset is 127.0.0.1, 0.0.0.0 is every one."),
    Flag("--port", "int", 8000, "Port to listen on; 0 lets the system choose."),
    Flag("--api-key", "each", [],
         "Key that requests must carry (Authorization: Bearer KEY). Repeatable; ENGINE_API_KEY and "
         "VLLM_API_KEY add one.", metavar="KEY"),
    Flag("--chat-template", "text", None, "Chat template: a file, or the template itself; unset is the tokenizer's.",
         engine=True),
    Flag("--chat-template-content-format", "str", "auto", "Message content handed to the template as text or as parts.",
         choices=("auto", "string", "openai"), engine=True),
    Flag("--trust-request-chat-template", "flag", False,
         "Take chat_template from requests: rendered in the sandbox, within limits of time, size and depth."),
    Flag("--response-role", "text", "assistant", "Role in chat answers."),
    Flag("--return-tokens-as-token-ids", "flag", False, "Tokens in log-probabilities are written token_id:N."),
    Flag("--enable-auto-tool-choice", "flag", False, "Let the model decide to call tools."),
    Flag("--tool-call-parser", "str", None,
         "Who finds tool calls in the output: NAME, NAME:{JSON options}, or auto (by the chat template).", kind="tool_parser",
         choices=TOOL_PARSERS, options=True),
    Flag("--tool-parser-plugin", "str", "",
         "Python file that is one more tool parser: a plugin module, called by the file's name without .py.", metavar="FILE"),
    Flag("--lora-modules", "words", None, "Adapters to load at start.", metavar="NAME=PATH", until="LoRA adapters"),
    Flag("--prompt-adapters", "words", None, "Prompt adapters to load at start.", metavar="NAME=PATH",
         until="prompt adapters"),
    Flag("--enable-request-id-headers", "flag", False, "Echo or create the X-Request-Id header, as this server always does."),
    Flag("--enable-prompt-tokens-details", "flag", False, "Report cached prompt tokens in usage."),
    Flag("--enable-server-load-tracking", "flag", False, "Make /load count."),
    Flag("--disable-frontend-multiprocessing", "flag", False, "Run server and engine in one process, for debugging.",
         engine=True),
    Flag("--disable-engine-restart", "flag", False,
         "When the engine process dies, fail its requests and stay unhealthy, instead of starting it again and going on."),
    Flag("--engine-silence-timeout", "float", 20.0,
         "Seconds without a sign of life (it gives one every second) after which the engine process is frozen and started again."),
    Flag("--step-timeout", "float", 600.0, "Seconds that one step of the engine may take before it is started again."),
    Flag("--max-queued-requests", "int", 8192,
         "Sequences without any output yet beyond which requests are refused with status 429; 0 is no limit.", metavar="N"),
    Flag("--max-queued-tokens", "int", 0,
         "Prompt tokens of such sequences beyond which requests are refused with status 429; 0 is no limit.", metavar="TOKENS"),
    Flag("--drain-timeout", "float", 30.0, "Seconds that running requests get to finish after the first SIGTERM or SIGINT."),
    Flag("--disable-fastapi-docs", "flag", False, "No /docs, /redoc and /openapi.json."),
    Flag("--max-log-len", "int", None, "Cut logged prompts to this many characters.", metavar="CHARS"),
    Flag("--uvicorn-log-level", "str", "info", "Log level of the HTTP server.", choices=LEVELS),
    Flag("--disable-uvicorn-access-log", "flag", False, "No access log."),
    Flag("--allow-credentials", "flag", False, "CORS: allow credentials."),
    Flag("--allowed-origins", "list", [], "CORS: allowed origins; none without it.", metavar="JSON"),
    Flag("--allowed-methods", "list", ["*"], "CORS: allowed methods.", metavar="JSON"),
    Flag("--allowed-headers", "list", ["*"], "CORS: allowed headers.", metavar="JSON"),
    Flag("--ssl-keyfile", "text", None, "HTTPS: the private key.", metavar="FILE"),
    Flag("--ssl-certfile", "text", None, "HTTPS: the certificate.", metavar="FILE"),
    Flag("--ssl-ca-certs", "text", None, "HTTPS: the certificates that clients are checked against.", metavar="FILE"),
    Flag("--enable-ssl-refresh", "flag", False, "HTTPS: read certificates again when their files change."),
    Flag("--ssl-cert-reqs", "int", 0, "HTTPS: 0 no client certificate, 1 optional, 2 required.",
         choices=("0", "1", "2")),
    Flag("--root-path", "text", None, "Path prefix of a proxy in front."),
    Flag("--middleware", "each", [], "ASGI middleware class or coroutine function, by import path. Repeatable.",
         metavar="MODULE.NAME"),
    Flag("--extensions", "names", None, "Extensions (observers and routes) to run, with commas; unset is none.",
         kind="extension", metavar="NAME,…"),
    Flag("--extension-options", "json", None, 'Options of extensions: a JSON object by name, as {"key_limits": {"requests": 4}}.'),
    Flag("--plugin", "each", [],
         "Python file that is one more plugin, of the kind whose hook it defines, called by the file's name without .py. Repeatable.",
         metavar="FILE.py", engine=True),
    Flag("--config", "str", None, "YAML file of flags; the command line wins over it.", metavar="FILE.yaml",
         engine=True),
)  # fmt: skip
