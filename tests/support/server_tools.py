"""Tools that vendors run themselves, in the forms of their API references."""

from typing import Any

SERVER_TOOLS: list[dict[str, Any]] = [
    # Anthropic
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    {"type": "web_search_20260209", "name": "web_search"},
    {"type": "web_fetch_20250910", "name": "web_fetch"},
    {"type": "bash_20250124", "name": "bash"},
    {"type": "code_execution_20250522", "name": "code_execution"},
    {"type": "code_execution_20250825", "name": "code_execution"},
    {
        "type": "computer_20250124",
        "name": "computer",
        "display_width_px": 1,
        "display_height_px": 1,
    },
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
    {"type": "mcp_toolset", "mcp_server_name": "files"},
    {"type": "advisor_20260301", "name": "advisor"},
    # OpenAI
    {"type": "web_search"},
    {"type": "web_search_preview_2025_03_11"},
    {"type": "file_search", "vector_store_ids": ["v"]},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "mcp", "server_label": "files", "server_url": "https://example.com"},
    {"type": "image_generation"},
    {"type": "computer_use_preview", "display_width": 1, "display_height": 1},
    {"type": "local_shell"},
    {"type": "shell"},
    {"type": "apply_patch"},
    {"type": "tool_search"},
    {"type": "namespace", "name": "crm", "tools": []},
    {"type": "custom", "name": "sql", "format": {"type": "grammar", "syntax": "lark"}},
    # OpenRouter, xAI, Moonshot, Zhipu
    {"type": "openrouter:web_search"},
    {"type": "x_search"},
    {"type": "builtin_function", "function": {"name": "$web_search"}},
    {"type": "retrieval", "retrieval": {"knowledge_id": "k"}},
    # Google
    {"google_search": {}},
    {"googleSearch": {}},
    {"google_search_retrieval": {}},
    {"google_maps": {}},
    {"code_execution": {}},
    {"codeExecution": {}},
    {"url_context": {}},
    {"file_search": {"file_search_store_names": ["s"]}},
    {"computer_use": {"environment": "ENVIRONMENT_BROWSER"}},
    {"enterprise_web_search": {}},
    {"mcp_servers": [{"name": "files"}]},
]
