"""
A role as a LangChain chat model, for chains, agents and LangGraph.

    from breakwater.langchain import ChatBreakwater

    model = ChatBreakwater(role="coder")
    model.invoke("Write a quicksort").text

    messages.py   translate LangChain's messages to ours
    answers.py    translate our results and events to LangChain's messages
    chunks.py     the chunks of a stream, and what happens when an answer restarts
    tools.py      translate tools, tool choices and schemas
    model.py      the chat model over all of them; `breakwater/asking/pending.py` waits for answers
"""

try:
    import langchain_core as _  # noqa: F401 - only checks that it is installed
except ModuleNotFoundError as missing:
    if missing.name != "langchain_core":
        raise
    raise ImportError(
        "breakwater.langchain needs langchain-core: pip install 'breakwater-llm[langchain]'"
    ) from None

from breakwater.asking.pending import AnswerRestarted
from breakwater.langchain.model import ChatBreakwater

__all__ = ["AnswerRestarted", "ChatBreakwater"]
