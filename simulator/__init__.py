"""
A loopback stand-in for the LLM vendors, with scripted faults.

It speaks four wire formats (Anthropic messages, OpenAI Responses and Chat Completions, Google
generateContent) faithfully enough for the official SDKs, logs every hit, and imports nothing of
the rest of this repository. Run it with `python -m simulator`, or from a test with
`simulator.client.Simulator`.
"""
