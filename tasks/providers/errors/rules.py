"""
The meanings of the vendors' errors: one table for every server, read from the top.

A rule matches if the status fits, and if the error has one of its codes or one of its phrases.
Phrases are plain substrings, so that matching is linear for any text; `…` stands for any text
between. An HTTP status alone is ambiguous: 400, 403, 404 and 429 each have many meanings. So codes
and words come first, and the status decides only what they leave open.

Sources: the error pages of the vendors and public reports, one by one in
`tests/providers/data/error_bodies.jsonl`, which also tests this table.
"""

import re
from dataclasses import dataclass

from breakwater.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ContentFiltered,
    ContextWindowExceeded,
    HostFault,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    QuotaExhausted,
    RateLimited,
    ServerError,
    UnknownError,
    UnsupportedInput,
)
from tasks.providers.errors.bodies import ErrorBody

STATUSES = {
    # Anthropic, OpenAI
    "authentication_error": 401, "permission_error": 403, "not_found_error": 404,
    "request_too_large": 413, "rate_limit_error": 429, "rate_limit_exceeded": 429,
    "too_many_requests": 429, "api_error": 500, "server_error": 500, "internal_server_error": 500,
    "internal_error": 500, "timeout_error": 504, "overloaded_error": 529, "billing_error": 402,
    "invalid_request_error": 400, "service_unavailable": 503, "service_unavailable_error": 503,
    "badrequesterror": 400, "internalservererror": 500,
    # Google's names of gRPC's codes
    "invalid_argument": 400, "failed_precondition": 400, "out_of_range": 400,
    "unauthenticated": 401, "permission_denied": 403, "not_found": 404, "aborted": 409,
    "resource_exhausted": 429, "cancelled": 499, "internal": 500,
    "unavailable": 503, "deadline_exceeded": 504,
    # Bedrock
    "validationexception": 400, "accessdeniedexception": 403, "resourcenotfoundexception": 404,
    "throttlingexception": 429, "modeltimeoutexception": 408, "internalserverexception": 500,
    "serviceunavailableexception": 503, "modelstreamerrorexception": 500,
}  # fmt: skip
"""By code, the status of an error that has none, because it is in a stream or in a 200."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: errors that match it become this error of ours."""

    error: type[ProviderError]
    meaning: str
    statuses: frozenset[int | None] = frozenset()
    """Empty: any. None among them stands for an error without a status."""
    codes: tuple[str, ...] = ()
    """Lower-case parts of codes; one of them in any code of the error is enough."""
    words: tuple[str, ...] = ()
    """Phrases; `…` between two parts stands for any text."""
    not_statuses: frozenset[int | None] = frozenset()
    unless: tuple[str, ...] = ()
    """Phrases that make the words, but not the codes, inconclusive."""

    def matches(self, status: int | None, codes: tuple[str, ...], body: ErrorBody) -> bool:
        """
        Return whether this row describes an error.

        Args:
            status: The HTTP status, or the one that the codes stand for.
            codes: The error's codes, in lower case.
            body: The error.
        """
        if (self.statuses and status not in self.statuses) or status in self.not_statuses:
            return False
        if not self.codes and not self.words:
            return True
        if any(part in code for part in self.codes for code in codes):
            return True
        if self.unless:
            sentence = _URL.sub("", body.words)
            if any(_contains(phrase, sentence) for phrase in self.unless):
                return False
        # One such error opens a breaker, so phrases in a quotation of the request do not count.
        words = body.words
        if self.error.verdict.trips_at_once:
            words = body.lead
        elif self.error.verdict.holds_model and not body.is_page:
            words = body.unquoted
        phrases = (*self.words, *filter(_is_a_name, self.codes))
        return any(_contains(phrase, words) for phrase in phrases)


def _contains(phrase: str, words: str) -> bool:
    at = 0
    for part in phrase.split("…"):
        at = words.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def _is_a_name(code: str) -> bool:
    """Return whether a code cannot be in a sentence by chance; gateways quote codes in messages."""
    return "_" in code.strip("_") and len(code) > 8


_4XX: frozenset[int | None] = frozenset(range(400, 500))
_PROMPT_STATUSES: frozenset[int | None] = frozenset(
    {400, 403, 404, 406, 412, 413, 415, 422, 500, 501}
)
"""Statuses of problems with the prompt; llama.cpp, Ollama and SGLang answer 500."""
_ACCOUNT_STATUSES: frozenset[int | None] = frozenset({400, 401, 402, 403, 404, 405, 412, 422, 429})
"""Statuses of problems with the account."""
_NOT_A_WINDOW: frozenset[int | None] = frozenset({401, 402, 429, 503, 529})

_URL = re.compile(r"\b[a-z]{1,10}://\S*")
_OF_THE_REQUEST = (
    "tool", "the function", "function call", "function name", "function_", "functions", "schema",
    "propert", "parameter", "argument", "messages", "message content", "image", "for url",
    "download", "json", "parse", "template", "field", "duplicate", "role", "filename", "file id",
    "file_id", "file file-", "previous_response", "item with id", "value error",
    "validation error", "keyword", "prompt", "detected", "contains cred", "validation failed",
    "stop sequence", "malformed", "input is not", "tokeniz", "unprocessable", "bad value",
)  # fmt: skip
"""The request is at fault, whatever else its own texts contain, which a server repeats."""
_OF_A_FIREWALL = ("firewall", "waf:", "administrat", "request was blocked", "pattern")

TOO_LARGE = Rule(
    ContextWindowExceeded,
    "the prompt alone is larger than the account's limit of tokens",
    frozenset({413, 429}),
    words=(
        "request too large for", "request too large…tokens per min",
        "extra usage is required for long context", "input or output tokens must be reduced",
    ),
)  # fmt: skip
"""More tokens in one prompt than the limit of a whole minute: waiting does not help."""

# fmt: off
RULES = (
    # This host: its network, its proxy. Other hosts of the fleet may well get through.
    Rule(HostFault, "the proxy wants a login; see HTTPS_PROXY", frozenset({407})),
    Rule(
        HostFault,
        "it does not let this host's address in; allow it at the vendor",
        frozenset({401, 403}),
        codes=("ip_not_authorized", "ip_address_blocked", "api_key_ip_address_blocked"),
        words=(
            "ip address is not", "your ip…not authorized", "ip…not allowed", "whitelist",
            "allowlist", "virtual network/firewall rules", "network/firewall", "ip not allowed",
            "check your network settings",
        ),
    ),
    TOO_LARGE,
    # Models that one account or one region may not use.
    Rule(
        ModelNotFound,
        "this account may not use the model",
        _ACCOUNT_STATUSES - {402},
        codes=(
            "model_access_denied", "model_permission_blocked", "model_terms_required",
            "model_not_available", "model_not_enabled", "model_restricted",
        ),
        words=(
            "organization must be verified", "not have access to…model", "access to the model",
            "access to model", "not allowed to access model", "model…not enabled for",
            "matching your data policy", "no allowed providers are available", "limit: 0,",
            "limit: 0 please", "limit: 0 quota", "not servable in region", "access to this model",
            "have access to claude", "have access to gpt", "not available on your plan",
            "on-demand throughput", "not allowed to use publisher model", "non-serverless model",
            "no endpoints available matching",
            "requires terms acceptance", "model is gated", "gated model", "subscribe to the model",
            "model not open", "activate the model", "not activated the model",
        ),
        unless=_OF_THE_REQUEST,
    ),
    # The account's money, which is reported as 400, 402, 403 and 429.
    Rule(QuotaExhausted, "the account has no credit left", frozenset({402})),
    Rule(
        QuotaExhausted,
        "the account has no credit or quota left",
        _ACCOUNT_STATUSES | {500, None},
        codes=(
            "insufficient_quota", "insufficient_user_quota", "billing", "spend_limit_reached",
            "perday", "exceeded_current_quota", "arrearage", "budget_exceeded", "exceededbudget",
            "insufficient_balance", "insufficientbalance", "payment_required", "freetieronly",
            "insufficient_credit", "quota_exhausted", "creditserror", "not_enough_balance",
            "accountoverdue", "token_quota_reached",
        ),
        words=(
            "credit balance is too low", "reached your specified…usage limits",
            "insufficient balance", "insufficient credit", "insufficient account balance",
            "insufficient funds", "insufficient quota", "not enough balance",
            "overdue balance", "payment instrument", "daily free allocation",
            "out of call volume quota", "out of credits", "credits are depleted",
            "credits exhausted", "used all available credits", "have any credits",
            "balance is insufficient", "exceeded budget for", "crossed budget",
            "monthly included credits", "monthly spend", "spending limit",
            "budget has been exceeded", "exceededbudget", "exceeded your monthly budget",
            "credit limit exceeded", "prepaid balance",
            "account is not active, please check your billing",
            "account is in good standing", "past due", "unpaid", "requires billing to be enabled",
            "enable billing", "billing is disabled", "billing account…disabled",
            "trial key…/ month", "free quota has been exhausted", "free allocated quota exceeded",
            "arrears",
            "余额不足", "欠费", "无可用资源包",
        ),
        unless=_OF_THE_REQUEST,
    ),
    # An account that was closed for breaking a policy; this prompt is not at fault.
    Rule(
        AuthenticationFailed,
        "it has closed the account",
        frozenset({400, 401, 403}),
        codes=("access_terminated", "account_deactivated", "account_suspended", "account_disabled"),
        words=(
            "organization has been disabled", "account has been disabled",
            "account has been deactivated", "account has been suspended",
            "account has been terminated", "access was terminated", "access has been terminated",
        ),
        unless=_OF_THE_REQUEST,
    ),
    Rule(
        UnsupportedInput,
        "it may not read a file of the prompt",
        frozenset({400, 403, 404, 422, 500}),
        words=(
            "permission to access the file", "cannot fetch content from the provided url",
            "url_error", "failed to fetch", "unable to download", "could not download",
            "error while downloading", "timeout while downloading", "failed to download",
            "cannot load image from url", "unable to fetch", "url…robots.txt",
            "url must use the https", "failed to load image", "error downloading",
            "client error…for url", "cloud storage object", "storage.objects.get",
            "image…could not be retrieved",
        ),
    ),
    # Failures of the model.
    Rule(
        UnsupportedInput,
        "the model failed to write the tool call or the JSON",
        codes=("tool_use_failed", "json_validate_failed", "output_parse_failed"),
        words=(
            "failed to call a function", "failed to generate json", "failed to parse input at pos",
            "error parsing tool call",
        ),
    ),
    # Content, before parameters: OpenAI has a code of its own for images.
    Rule(
        ContentFiltered,
        "it refuses this prompt",
        not_statuses=frozenset({401, 402, 429}),
        codes=(
            "content_policy", "content_filter", "policy_violation", "invalid_prompt", "moderation",
            "bio_policy", "cyber_policy", "responsibleaipolicyviolation", "data_inspection_failed",
            "datainspectionfailed", "prohibited_content", "content_blocked", "sensitive",
            "guardrail", "content_violation", "safety",
        ),
    ),
    Rule(
        ContentFiltered,
        "it refuses this prompt",
        _PROMPT_STATUSES | {451, None},
        words=(
            "content filter", "content_filter", "content management policy", "content policy",
            "content moderation", "usage polic", "usage guidelines", "flagged",
            "inappropriate content", "content exists risk", "considered high risk",
            "sensitive content", "prohibited content", "prohibited use", "safety system",
            "safety filter", "safety check", "responsible ai", "guardrail", "violat…polic",
            "violat…guidelines", "violates…terms", "敏感内容", "new_sensitive", "sensitive words",
        ),
    ),
    # If the bound on the answer is too high for the model, the parameter is at fault.
    Rule(
        ContextWindowExceeded,
        "the prompt leaves no room for an answer",
        not_statuses=_NOT_A_WINDOW,
        words=(
            "max_tokens must be at least 1, got -", "max_tokens must be at least 1, got 0",
            "max_tokens must be positive, got -", "max_completion_tokens must be at least 1, got -",
            "max_new_tokens must be…got -", "inputs tokens + max_new_tokens",
        ),
    ),
    Rule(
        UnsupportedInput,
        "it gives no answer as long as max_output_tokens",
        not_statuses=_NOT_A_WINDOW,
        words=(
            "max_tokens is too large", "max_completion_tokens is too large",
            "max_output_tokens is too large", "maximum allowed number of output tokens",
            "supports at most…completion tokens", "valid range of max_tokens",
            "range of max_tokens", "max_tokens must be less than", "max_tokens cannot exceed",
            "max_tokens must be <=", "max_tokens should be", "max_tokens…less than or equal",
            "max_new_tokens must be <=", "max_tokens limit exceeded", "maxoutputtokens",
            "max_output_tokens must be", "maximum tokens you requested exceeds the model limit",
            "max_tokens…between", "max_tokens…range", "max_completion_tokens…range",
        ),
    ),
    Rule(
        ContextWindowExceeded,
        "the prompt is longer than the model's window",
        not_statuses=_NOT_A_WINDOW,
        codes=(
            "context_length_exceeded", "exceed_context_size", "string_above_max_length",
            "context_window_exceeded", "contextwindowexceeded", "context_length", "prompt_too_long",
            "max_prompt_tokens_exceeded", "tokens_limit_reached", "token_limit_exceeded",
            "input_too_long", "context_too_long", "invalid_request_prompt",
        ),
        words=(
            "prompt is too long", "prompt too long", "input is too long", "input too long",
            "context is too long", "context too long", "input prompt is too long", "context window",
            "context size", "context length", "context limit", "maximum context", "max context",
            "exceeds the maximum number of tokens", "maximum prompt length", "max prompt length",
            "maximum input length", "max input length", "range of input length",
            "input length…exceed", "input tokens exceed", "expected maxlength",
            "max length exceeded", "sequence length", "while limit is",
            "inputs must have less than", "longer than the maximum model length",
            "model token limit", "token limit exceeded", "exceeds token limit",
            "input token count…exceeds", "prompt tokens…exceed", "number of tokens…exceed",
            "tokens…exceeds the model", "tokens…maximum allowed", "exceed…max message tokens",
            "exceed…max_seq_len", "exceeds max_seq_len", "exceeds the max length",
            "exceeds max length", "reduce the length", "reduce your prompt", "shorten your prompt",
            "reduce your message size", "too many tokens in", "too many input tokens",
            "too many prompt tokens", "more than max tokens allowed", "larger than the model",
            "input is larger", "exceeds the model limit", "total tokens…exceed", "prompt 超长",
            "超长", "超过最大长度", "上下文长度", "tokens 超", "exceeds maximum tokens",
            "prompt has…tokens, but", "max_model_len", "available context", "max_total_tokens",
            "kv cache", "prompt length…exceed", "maximum allowed number of tokens",
            "input exceeds", "number of input tokens", "prompt exceeds", "token limit of",
            "tokens which exceeds the limit", "token count…exceeds", "tokens, the limit is",
            "conversation is too long", "prompt is too large", "contexte", "kontextlänge",
            "ventana de contexto", "コンテキスト", "输入长度", "token数量超过", "컨텍스트",
            "контекста",
        ),
    ),
    # Features that one model or one server lacks; the next target may have them.
    Rule(
        UnsupportedInput,
        "it does not take what the prompt asks for",
        _PROMPT_STATUSES | {None},
        codes=(
            "unsupported_parameter", "unsupported_value", "extra_forbidden", "unsupported_content",
            "unsupported_media", "unsupported_file", "invalid_json_schema",
            "invalid_function_parameters", "unsupported_feature", "unknown_parameter",
            "unsupported_tool", "unsupportedparams", "image_url", "invalid_image",
            "invalid_base64_image", "unsupported_image", "image_parse", "image_file", "image_too",
            "failed_to_download_image",
        ),
        words=(
            "no endpoints found that support", "no endpoints found that can handle",
            "unsupported parameter", "unsupported value", "unrecognized request argument",
            "unknown parameter", "unknown field", "unknown name", "unexpected keyword",
            "extra inputs are not permitted", "does not support", "doesnt support",
            "do not support", "dont support", "tools…not supported", "function calling",
            "tool choice", "tool-call-parser", "enable-auto-tool-choice",
            "is not supported with this model", "is not supported for this model",
            "not supported by this model", "is not supported by model",
            "is deprecated for this model", "not compatible with this model", "is not enabled for",
            "cannot both be specified", "response format", "response mime type", "json mode",
            "schema is too complex", "too many states", "invalid schema", "not a multimodal model",
            "roles must alternate", "developer instruction", "expected last role",
            "image input is not supported", "audio input is not supported", "--jinja", "mmproj",
            "assistant prefill",
        ),
    ),
    # The model, before 401 and 403: a misspelt model must not look like a bad key.
    Rule(
        ModelNotFound,
        "it does not know the model",
        _ACCOUNT_STATUSES | {410, 500, None},
        codes=(
            "model_not_found", "deploymentnotfound", "model_decommissioned", "invalid_model",
            "modelnotfound", "model_not_exist", "model_deprecated", "unsupported_model",
            "model_not_supported", "operationnotsupported", "endpointormodel", "unknown_model",
            "model_not_deployed", "invalidmodel", "dedicated_endpoint",
            "deployment_not_found", "model_retired",
        ),
        words=(
            "not a valid model", "invalid model", "unknown model", "no such model",
            "model not exist", "model_not_found", "model not found", "unsupported model",
            "model…does not exist", "model…not found", "model…doesnt exist", "models…not found",
            "deployment…does not exist", "been decommissioned", "been deprecated", "been retired",
            "been shut down", "been sunset", "is no longer supported", "is no longer available",
            "end of life", "end of its life", "model…is not supported", "model…not available",
            "model…is unavailable", "not a chat model", "no models loaded", "failed to load model",
            "model identifier is invalid", "on-demand throughput isnt supported",
            "no endpoints found", "not supported for generatecontent", "model…not deployed",
            "requested model", "模型不存在", "model…is not loaded", "model…could not be found",
            "pulling it first", "there are no healthy deployments", "degraded function",
            "endpoint…is not running",
        ),
        unless=_OF_THE_REQUEST,
    ),
    Rule(ModelNotFound, "it does not know the model, or the path", frozenset({404, 410})),
    # The key. 401 is proof by itself; firewalls answer 403, too.
    Rule(AuthenticationFailed, "it does not accept the key", frozenset({401})),
    Rule(
        AuthenticationFailed,
        "it does not accept the key, or does not let the account do this",
        frozenset({400, 403, 412, 422, None}),
        codes=(
            "invalid_api_key", "api_key_invalid", "apikeyinvalid", "invalidapikey", "wrong_api_key",
            "authentication", "unauthorized", "unauthenticated", "permission",
            "accessdenied", "access_denied", "access_terminated", "account_deactivated",
            "account_suspended", "unsupported_country", "service_disabled", "consumer_suspended",
            "service_blocked", "referrer_blocked", "unrecognizedclient", "invalidsignature",
            "expiredtoken", "missingauthenticationtoken", "invalid_authentication",
            "not_authorized",
            "access_token", "user_location", "organization_restricted", "account_restricted",
            "account_disabled", "organization_disabled",
        ),
    ),
    Rule(
        AuthenticationFailed,
        "it does not accept the key, or does not let the account do this",
        frozenset({400, 403, 412, 422}),
        words=(
            "api key", "api-key", "api_key", "apikey", "authenticat", "not authorized",
            "authorization failed", "organization has been restricted",
            "unauthorized", "not permitted to", "credential", "permission", "token is invalid",
            "invalid token", "token has expired", "security token", "not have access",
            "location is not supported", "country, region, or territory",
            "not available in your country", "not available in your region",
            "region is not supported", "organization has been disabled", "account has been",
            "account is not", "account is suspended", "account is disabled", "account is locked",
            "account is restricted", "account…suspended", "account…deactivated", "account…disabled",
            "project…disabled", "has not been used in project", "access denied, please",
            "not allowed for this account", "workspace…disabled", "request not allowed",
        ),
        unless=(*_OF_THE_REQUEST, *_OF_A_FIREWALL),
    ),
    Rule(
        UnknownError,
        "without the vendor's own words: a firewall or a gateway may say so",
        frozenset({403}),
    ),
    # Load.
    Rule(RateLimited, "it asks to slow down", frozenset({429, 498})),
    Rule(
        RateLimited,
        "it asks to slow down",
        frozenset({400, 420, None}),
        codes=("rate_limit", "too_many_requests", "throttl"),
        words=("rate limit", "too many requests", "rate increased too quickly"),
    ),
    Rule(ProviderTimeout, "it gave up waiting for itself", frozenset({408, 504, 524})),
    Rule(Overloaded, "it is overloaded", frozenset({503, 529})),
    Rule(
        Overloaded,
        "it is overloaded",
        frozenset({500, None}),
        codes=("overloaded", "slow_down", "insufficient_system_resource", "capacity_exceeded"),
        words=("is overloaded", "currently overloaded", "is currently loading", "loading model"),
    ),
    # The SDKs themselves retry a conflict like a 5xx; 499 is Google's CANCELLED.
    Rule(ServerError, "it failed", frozenset({409, 425, 499, *range(500, 600)})),
    Rule(UnknownError, "something it depends on failed", frozenset({424})),
    Rule(
        ConnectionFailed,
        "something else answers there; check base_url and proxies",
        frozenset({*range(300, 400), 405, 421, 426}),
    ),
    Rule(UnsupportedInput, "the request is too large, or of a type it does not take",
         frozenset({413, 415})),
    Rule(
        UnsupportedInput,
        "it does not take what the prompt asks for",
        frozenset({400, 422}),
        codes=("image", "_above_max", "_below_min", "invalid_file"),
        words=(
            "unsupported", "not supported", "unrecognized", "additional properties",
            "only supports",
            "only the default", "response_format", "json schema", "json_schema", "too complex",
            "grammar", "guided decoding", "structured output", "multimodal", "image", "vision",
            "audio", "video", "pdf", "mime type", "media type", "media_type", "document",
            "file type", "system role", "system message", "last message", "must be followed by",
            "thinking", "reasoning", "logprobs", "stop sequence", "temperature", "top_p", "top_k",
            "presence_penalty", "frequency_penalty", "seed", "tool", "stream_options",
            "max_tokens", "max_completion_tokens", "is unavailable now", "cannot be used together",
        ),
    ),
    Rule(InvalidRequest, "it does not take the request", _4XX),
)
# fmt: on

UNKNOWN = Rule(UnknownError, "an error that names nothing known")


def rule_for(status: int | None, body: ErrorBody) -> Rule:
    """
    Return the first rule that matches an error.

    Args:
        status: The HTTP status; None for an error inside an answer or a stream.
        body: The error.
    """
    codes = tuple(code.lower() for code in body.codes)
    if status is None or status < 300:
        status = _implied(codes)
    if asks_more_than_the_limit(body.words) and status in {400, 413, 429}:
        return TOO_LARGE
    matching = (rule for rule in RULES if rule.matches(status, codes, body))
    return next(matching, UNKNOWN)


def _implied(codes: tuple[str, ...]) -> int | None:
    """Return the status that the first of the codes stands for that has one."""
    for code in codes:
        if len(code) == 3 and code.isdigit() and 400 <= int(code) <= 599:
            return int(code)
    return next((STATUSES[code] for code in codes if code in STATUSES), None)


_LIMIT = re.compile(r"limit:? (\d[\d,]{0,14})")
_REQUESTED = re.compile(r"requested:? (\d[\d,]{0,14})")


def asks_more_than_the_limit(words: str) -> bool:
    """
    Return whether one request needs more tokens than its limit allows in a whole minute.

    Groq and OpenAI send `Limit 6000, Used 0, Requested 7500`.
    """
    limit, requested = _LIMIT.search(words), _REQUESTED.search(words)
    if not limit or not requested or "token" not in words:
        return False
    return int(requested[1].replace(",", "")) > int(limit[1].replace(",", ""))
