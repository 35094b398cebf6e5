"""
A local server that stands in for the LLM vendors, with scripted faults.

It implements four wire formats (Anthropic messages, OpenAI Responses and Chat Completions, Google
generateContent) well enough for the official SDKs, and logs each call. It imports nothing from the
rest of this repository. Run it with `python -m simulator`, or from a test with
`simulator.client.Simulator`.
"""
